import type { Clock } from '../../leaves/clock.js';
import type { Millis } from '../../leaves/units.js';
import { millis } from '../../leaves/units.js';
import type { Latch } from './latch.js';

interface Waiter {
  resolve(): void;
  reject(error: Error): void;
}

/** Whether a cutover is wanted, since when, and who waits for it. */
export class CutoverRequests {
  readonly #clock: Clock;
  readonly #latch: Latch;
  #waiters: Waiter[] = [];
  #wanted = false;
  #guestWaits = false;
  /** Kept when it does not come to it, for an offer that is answered only after a break. */
  #wantedAt: Millis | undefined;
  #stall: Millis | undefined;

  constructor(clock: Clock, latch: Latch) {
    this.#clock = clock;
    this.#latch = latch;
  }

  get wanted(): boolean {
    return this.#wanted;
  }

  /** A guest on the target waits for it. */
  get guestWaits(): boolean {
    return this.#guestWaits;
  }

  /** From the wish to the target's answer; undefined before. */
  get stall(): Millis | undefined {
    return this.#stall;
  }

  want(): void {
    if (this.wanted) return;
    this.#wanted = true;
    this.#wantedAt = this.#clock.now();
    this.#latch.notify();
  }

  /** As `want`, because a guest on the target waits. */
  wantForGuest(): void {
    this.#guestWaits = true;
    this.want();
  }

  /** Wants it, and resolves when it is over. */
  ask(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiters.push({ resolve, reject });
      this.want();
    });
  }

  /** The target has answered. */
  measure(): void {
    if (this.#wantedAt !== undefined) this.#stall = millis(this.#clock.now() - this.#wantedAt);
  }

  resolve(): void {
    for (const waiter of this.#waiters.splice(0)) waiter.resolve();
  }

  /** It did not come to it; nobody wants it any more. */
  reject(error: Error): void {
    this.#wanted = this.#guestWaits = false;
    for (const waiter of this.#waiters.splice(0)) waiter.reject(error);
  }
}
