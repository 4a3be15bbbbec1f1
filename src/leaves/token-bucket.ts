import type { Abortable } from './abort-handle.js';
import type { Clock } from './clock.js';
import type { BytesPerSecond, Millis } from './units.js';
import { KiB, millis } from './units.js';

/**
 * Who asks for tokens. While both do, the bytes are shared evenly, so that neither starves: a write that follows the
 * answer to the one before has its half too, although it never waits when a copy is through.
 */
export type Lane = 'copy' | 'write';

/** How much of its rate a bucket may save up while nobody asks. */
const BURST: Millis = millis(50);
const BURST_BYTES_MIN = 16 * KiB;

interface Waiter {
  readonly amount: number;
  grant(): void;
}

interface Queue {
  readonly waiters: Waiter[];
  /** Bytes granted, as a virtual time: the queue with the least goes next. */
  served: number;
}

/**
 * Token bucket with debt: whoever asks is let through while the level is above zero, and pays afterwards, so that
 * an amount larger than the capacity needs no special case and the long-run rate is exact. `level` is in bytes.
 * The rate may change at any time; `UNLIMITED` lets everybody through.
 */
export class TokenBucket {
  readonly #clock: Clock;
  readonly #queues: Readonly<Record<Lane, Queue>> = {
    copy: { waiters: [], served: 0 },
    write: { waiters: [], served: 0 },
  };
  #rate: BytesPerSecond;
  #level: number;
  #filledAt: Millis;
  #forgetTimer: (() => void) | null = null;

  constructor(clock: Clock, rate: BytesPerSecond) {
    this.#clock = clock;
    this.#rate = rate;
    this.#level = this.#capacity();
    this.#filledAt = clock.now();
  }

  get rate(): BytesPerSecond {
    return this.#rate;
  }

  get waiting(): number {
    return this.#queues.copy.waiters.length + this.#queues.write.waiters.length;
  }

  /** Takes effect at once, also for those who wait. A debt made under the old rate is kept up to one second's worth. */
  setRate(rate: BytesPerSecond): void {
    this.#fill();
    this.#rate = rate;
    this.#level = Number.isFinite(rate) ? Math.max(Math.min(this.#level, this.#capacity()), -rate) : 0;
    this.#serve();
  }

  /** `undefined`: granted now. Otherwise resolves when granted, or rejects when the signal aborts. */
  take(amount: number, lane: Lane, by?: Abortable): Promise<void> | undefined {
    if (this.#rate === Number.POSITIVE_INFINITY) return undefined;
    this.#fill();
    this.#enter(lane);
    const queue = this.#queues[lane];
    const first = queue.waiters.length === 0;
    if ((this.#level > 0 && this.waiting === 0) || (lane === 'write' && first && this.#mayOverdraw(amount))) {
      this.#grant(queue, amount);
      return undefined;
    }
    return this.#wait(amount, lane, by?.signal);
  }

  /** Returns tokens that were taken and not used. */
  give(amount: number): void {
    if (amount <= 0 || this.#rate === Number.POSITIVE_INFINITY) return;
    this.#level = Math.min(this.#level + amount, this.#capacity());
    this.#serve();
  }

  #wait(amount: number, lane: Lane, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason as Error);
      const queue = this.#queues[lane];
      const waiter: Waiter = {
        amount,
        grant: () => {
          signal?.removeEventListener('abort', onAbort);
          resolve();
        },
      };
      const onAbort = (): void => {
        queue.waiters.splice(queue.waiters.indexOf(waiter), 1);
        if (this.waiting === 0) this.#forget();
        reject(signal?.reason as Error);
      };
      signal?.addEventListener('abort', onAbort, { once: true });
      queue.waiters.push(waiter);
      this.#serve();
    });
  }

  #forget(): void {
    this.#forgetTimer?.();
    this.#forgetTimer = null;
  }

  #serve(): void {
    this.#forget();
    this.#fill();
    for (let queue = this.#nextQueue(); queue; queue = this.#nextQueue()) {
      const waiter = queue.waiters.shift()!;
      this.#grant(queue, waiter.amount);
      waiter.grant();
    }
    if (this.waiting === 0) return;
    const delay = Math.max(1, Math.ceil(((-this.#level + 1) / this.#rate) * 1000));
    this.#forgetTimer = this.#clock.after(millis(delay), () => {
      this.#forgetTimer = null;
      this.#serve();
    });
  }

  /** A lane that was idle owes nothing, and has saved up next to nothing. */
  #enter(lane: Lane): void {
    const { copy, write } = this.#queues;
    if (lane === 'copy' && copy.waiters.length === 0) copy.served = Math.max(copy.served, write.served);
    if (lane === 'write' && write.waiters.length === 0)
      write.served = Math.max(write.served, copy.served - this.#capacity());
  }

  /** Copies have had so much more that a write need not wait until that is paid; whoever copies next waits for both. */
  #mayOverdraw(amount: number): boolean {
    const { copy, write } = this.#queues;
    return write.served + amount <= copy.served;
  }

  #grant(queue: Queue, amount: number): void {
    if (Number.isFinite(this.#rate)) this.#level -= amount;
    queue.served += amount;
  }

  /** Whose turn it is now. */
  #nextQueue(): Queue | undefined {
    const { copy, write } = this.#queues;
    const [first] = write.waiters;
    if (first && this.#mayOverdraw(first.amount)) return write;
    if (this.#level <= 0 && Number.isFinite(this.#rate)) return undefined;
    if (first && (copy.waiters.length === 0 || write.served < copy.served)) return write;
    return copy.waiters.length > 0 ? copy : undefined;
  }

  #fill(): void {
    const now = this.#clock.now();
    if (Number.isFinite(this.#rate)) {
      const earned = ((now - this.#filledAt) / 1000) * this.#rate;
      this.#level = Math.min(this.#level + earned, this.#capacity());
    }
    this.#filledAt = now;
  }

  #capacity(): number {
    return Number.isFinite(this.#rate) ? Math.max((this.#rate * BURST) / 1000, BURST_BYTES_MIN) : 0;
  }
}
