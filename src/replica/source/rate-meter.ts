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

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#startedAt = clock.now();
    this.#at = this.#startedAt;
  }

  /** `over`: it came evenly within the last milliseconds, not at this moment. */
  add(amount: number, over = 0): void {
    this.#decay();
    const kept = over > 0 ? (-Math.expm1(-over / SMOOTHING) * SMOOTHING) / over : 1;
    this.#weighted += amount * kept;
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
