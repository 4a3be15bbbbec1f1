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
  take(amount: number, lane: Lane, signal: AbortSignal): Promise<void> | undefined {
    const own = this.own.take(amount, lane, signal);
    if (own) return own.then(() => this.#host.take(amount, lane, signal));
    return this.#host.take(amount, lane, signal);
  }

  /** Returns tokens that were taken and not used. */
  give(amount: number): void {
    this.own.give(amount);
    this.#host.give(amount);
  }
}
