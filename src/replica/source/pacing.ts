import type { Abortable } from '../../leaves/abort-handle.js';
import type { Lane, TokenBucket } from '../../leaves/token-bucket.js';
import type { BytesPerSecond } from '../../leaves/units.js';

/** Network pacing of one migration: its own bucket under the one of the host. */
export class Pacing {
  readonly own: TokenBucket;
  readonly #host: TokenBucket;

  constructor(own: TokenBucket, host: TokenBucket) {
    this.own = own;
    this.#host = host;
  }

  /** The lower of the two limits. */
  get rate(): BytesPerSecond {
    return Math.min(this.own.rate, this.#host.rate) as BytesPerSecond;
  }

  /** `undefined`: granted now. Rejects with the signal's reason. */
  take(amount: number, lane: Lane, by: Abortable): Promise<void> | undefined {
    const own = this.own.take(amount, lane, by);
    if (own) return own.then(() => this.#host.take(amount, lane, by));
    return this.#host.take(amount, lane, by);
  }

  /** Returns tokens that were taken and not used. */
  give(amount: number): void {
    this.own.give(amount);
    this.#host.give(amount);
  }
}
