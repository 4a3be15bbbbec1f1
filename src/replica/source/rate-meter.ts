import type { Clock } from '../../leaves/clock.js';
import type { Millis } from '../../leaves/units.js';
import { millis } from '../../leaves/units.js';

/** Time constant of the smoothing: what happened this long ago counts 1/e. */
const SMOOTHING: Millis = millis(2000);

/**
 * A smoothed rate in units per second: an exponentially weighted mean over the past. While younger than the
 * smoothing time it divides by the time it has really seen, so that it is not too low at first.
 */
export class RateMeter {
  readonly #clock: Clock;
  readonly #startedAt: Millis;
  #weighted = 0;
  #at: Millis;
  #sampledAt: Millis;
  #sinceSample = 0;
  #samples = 0;
  #mean = 0;
  #variance = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#startedAt = clock.now();
    this.#at = this.#startedAt;
    this.#sampledAt = this.#startedAt;
  }

  add(amount: number): void {
    this.#decay();
    this.#weighted += amount;
    this.#sinceSample += amount;
  }

  /** Ends one sample, for `deviation`. */
  sample(): void {
    const now = this.#clock.now();
    const elapsed = now - this.#sampledAt;
    if (elapsed <= 0) return;
    const value = (this.#sinceSample / elapsed) * 1000;
    this.#sampledAt = now;
    this.#sinceSample = 0;
    this.#samples++;
    // The first samples count alike, or the first of all would count most.
    const weight = Math.max(1 - Math.exp(-elapsed / SMOOTHING), 1 / this.#samples);
    const change = value - this.#mean;
    this.#mean += weight * change;
    this.#variance = (1 - weight) * (this.#variance + weight * change * change);
  }

  /** Standard deviation of the samples, weighted as the rate is; units per second. */
  get deviation(): number {
    return Math.sqrt(this.#variance);
  }

  /** Units per second. */
  get rate(): number {
    this.#decay();
    const seen = 1 - Math.exp(-Math.max(this.#at - this.#startedAt, 1) / SMOOTHING);
    return ((this.#weighted / SMOOTHING) * 1000) / seen;
  }

  #decay(): void {
    const now = this.#clock.now();
    if (now > this.#at) this.#weighted *= Math.exp(-(now - this.#at) / SMOOTHING);
    this.#at = now;
  }
}
