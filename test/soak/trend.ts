/** Whether a sampled quantity grows: pure, so that the criterion itself can be tested. */
import { median } from '../../bench/statistics.js';

export interface Sample {
  /** Seconds since the first one. */
  readonly at: number;
  readonly value: number;
}

/** In the unit of the samples; growth is over the whole time observed, negative where the quantity shrank. */
export interface Trend {
  readonly seconds: number;
  /** Median of all samples. */
  readonly level: number;
  /** The median slope of all pairs (Theil 1950, Sen 1968): up to 29 % of outliers do not move it. */
  readonly slopeGrowth: number;
  /** From the median of the first quarter to that of the last, brought to the whole time. */
  readonly stepGrowth: number;
}

/** What may pass for noise: the larger of the two counts. */
export interface Tolerance {
  readonly absolute: number;
  /** Of the level. */
  readonly share: number;
}

/** Fewer samples say nothing. */
export const SAMPLES_MIN = 16;

/** The medians of two quarters are three quarters of the time apart. */
const QUARTERS_TO_WHOLE = 4 / 3;

const theilSen = (samples: readonly Sample[]): number => {
  const slopes: number[] = [];
  samples.forEach((a, i) => {
    for (const b of samples.slice(i + 1)) if (b.at > a.at) slopes.push((b.value - a.value) / (b.at - a.at));
  });
  return median(slopes);
};

/** Samples in order of time, at least `SAMPLES_MIN`. */
export const trendOf = (samples: readonly Sample[]): Trend => {
  if (samples.length < SAMPLES_MIN)
    throw new RangeError(`${samples.length} samples, at least ${SAMPLES_MIN} are needed`);
  const values = samples.map(({ value }) => value);
  const quarter = samples.length >> 2;
  const seconds = samples.at(-1)!.at - samples[0]!.at;
  return {
    seconds,
    level: median(values),
    slopeGrowth: theilSen(samples) * seconds,
    stepGrowth: (median(values.slice(-quarter)) - median(values.slice(0, quarter))) * QUARTERS_TO_WHOLE,
  };
};

export const toleratedGrowth = ({ level }: Trend, { absolute, share }: Tolerance): number =>
  Math.max(absolute, level * share);

/** Both estimates are within the tolerance. Shrinking is flat. */
export const isFlat = (trend: Trend, tolerance: Tolerance): boolean =>
  Math.max(trend.slopeGrowth, trend.stepGrowth) <= toleratedGrowth(trend, tolerance);
