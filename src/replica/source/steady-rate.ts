/** Seconds. The smoothing time is this part of what was seen, within these bounds: a long migration knows more. */
const SMOOTHING_PART = 0.2;
const SMOOTHING_MIN = 2;
const SMOOTHING_MAX = 60;
/** Samples that show together that the load is another one. */
const RECENT_SAMPLES = 4;
/** They differ from the rate by this part of it at least, and by this many standard deviations. */
const CHANGE_PART = 0.25;
const CHANGE_DEVIATIONS = 2.5;
const CHANGE_RECENT_DEVIATIONS = 2;

/**
 * The rate that is expected to go on: a weighted mean over a time that grows with what was seen, begun anew when the
 * load has clearly changed. A load that comes and goes has a large deviation, so its mean is kept.
 */
export class SteadyRate {
  readonly #recent: number[] = [];
  /** The deviations before each of them, which a change has not yet raised. */
  readonly #deviations: number[] = [];
  /** Seconds since the mean was begun, and the time constant's integral of weights. */
  #age = 0;
  #weighted = 0;
  #weights = 0;
  /** Of all samples, whatever has changed: seconds seen, mean and variance. */
  #seen = 0;
  #samples = 0;
  #mean = 0;
  #variance = 0;

  /** What happened within the `seconds` (above 0) since the last sample. */
  sample(amount: number, seconds: number): void {
    const value = amount / seconds;
    this.#age += seconds;
    const decay = Math.exp(-seconds / smoothing(this.#age));
    // The weight of a time as long as the sample, spread evenly over it.
    const weight = smoothing(this.#age) * (1 - decay);
    this.#weighted = this.#weighted * decay + value * weight;
    this.#weights = this.#weights * decay + weight;
    this.#recent.push(value);
    this.#deviations.push(this.deviation);
    if (this.#recent.length > RECENT_SAMPLES) {
      this.#recent.shift();
      this.#deviations.shift();
    }
    this.#restartIfChanged(seconds);
    this.#vary(value, seconds);
  }

  /** Per second. */
  get rate(): number {
    return this.#weights > 0 ? this.#weighted / this.#weights : 0;
  }

  /** Standard deviation of the samples, of the present load and the ones before it. */
  get deviation(): number {
    return Math.sqrt(this.#variance);
  }

  #restartIfChanged(seconds: number): void {
    if (this.#recent.length < RECENT_SAMPLES) return;
    const mean = this.#recent.reduce((sum, each) => sum + each, 0) / RECENT_SAMPLES;
    const spread = this.#recent.reduce((sum, each) => sum + (each - mean) ** 2, 0) / RECENT_SAMPLES;
    const change = Math.abs(mean - this.rate);
    if (change <= CHANGE_PART * this.rate || change <= CHANGE_DEVIATIONS * this.#deviations[0]!) return;
    if (change <= CHANGE_RECENT_DEVIATIONS * Math.sqrt(spread)) return;
    this.#age = RECENT_SAMPLES * seconds;
    this.#weights = this.#age;
    this.#weighted = mean * this.#age;
  }

  #vary(value: number, seconds: number): void {
    this.#seen += seconds;
    this.#samples++;
    // The first samples count alike, or the first of all would count most.
    const weight = Math.max(1 - Math.exp(-seconds / smoothing(this.#seen)), 1 / this.#samples);
    const change = value - this.#mean;
    this.#mean += weight * change;
    this.#variance = (1 - weight) * (this.#variance + weight * change * change);
  }
}

/** Both in seconds. */
export const smoothing = (age: number): number =>
  Math.min(SMOOTHING_MAX, Math.max(SMOOTHING_MIN, age * SMOOTHING_PART));
