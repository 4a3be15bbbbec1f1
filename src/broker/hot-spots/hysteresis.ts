/** A value that becomes high at one threshold and low again only below another. Pure: time is an argument. */
import type { Millis } from '../../leaves/units.js';

export interface Thresholds {
  /** High from here on. */
  readonly upper: number;
  /** Low again below this; not above `upper`. */
  readonly lower: number;
  /** It has to stay at or above `upper` for this long. */
  readonly rise: Millis;
  /** It has to stay below `lower` for this long. */
  readonly fall: Millis;
}

export interface Hysteresis {
  readonly high: boolean;
  /** Since when every value has been past the threshold that changes `high`; absent: the last one was not. */
  readonly crossedAt?: Millis;
}

export const LOW: Hysteresis = { high: false };

/** The state after `value` was seen at `at`, which never goes back. */
export const stepped = (
  state: Hysteresis,
  at: Millis,
  value: number,
  { upper, lower, rise, fall }: Thresholds,
): Hysteresis => {
  const crossed = state.high ? value < lower : value >= upper;
  if (!crossed) return { high: state.high };
  const crossedAt = state.crossedAt ?? at;
  return at - crossedAt >= (state.high ? fall : rise)
    ? { high: !state.high }
    : { high: state.high, crossedAt };
};
