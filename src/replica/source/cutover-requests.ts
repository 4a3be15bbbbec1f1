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
    this.#wanted = false;
    for (const waiter of this.#waiters.splice(0)) waiter.reject(error);
  }
}
