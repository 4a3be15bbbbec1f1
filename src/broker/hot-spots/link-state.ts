/** Whether one direction of a link is saturated, and whether others want it. Pure: time is an argument. */
import type { Millis } from '../../leaves/units.js';
import { millis } from '../../leaves/units.js';
import type { Hysteresis, Thresholds } from './hysteresis.js';
import { LOW, stepped } from './hysteresis.js';

export interface LinkThresholds extends Thresholds {
  /**
   * A saturated link is hot when what is not this host's migrations is at least this part of its capacity, and until
   * that is below half of it.
   */
  readonly others: number;
}

export interface LinkSample {
  /** Monotonic. */
  readonly at: Millis;
  /** Part of the capacity that is used: 1 is all of it. */
  readonly utilisation: number;
  /** Part of the capacity that others use; absent: not known. */
  readonly others?: number;
}

export interface LinkState {
  /** When the newest sample was taken; absent: there is none. */
  readonly at?: Millis;
  readonly saturation: Hysteresis;
  readonly others: Hysteresis;
}

/** Of the time that a link has to be saturated: what own migrations send is an average over seconds already. */
const OTHERS_RISE = 0.5;

const UNKNOWN: LinkState = { saturation: LOW, others: LOW };

/** The state after a sample. One that comes later than `staleAfter` after the one before begins anew. */
export const nextLinkState = (
  previous: LinkState | undefined,
  { at, utilisation, others }: LinkSample,
  thresholds: LinkThresholds,
  staleAfter: Millis,
): LinkState => {
  const state = previous?.at === undefined || at - previous.at > staleAfter ? UNKNOWN : previous;
  const { rise, fall } = thresholds;
  const share = {
    upper: thresholds.others,
    lower: thresholds.others / 2,
    rise: millis(rise * OTHERS_RISE),
    fall,
  };
  const saturation = stepped(state.saturation, at, utilisation, thresholds);
  // Who wanted it then says nothing of who fills it next.
  const cooled = state.saturation.high && !saturation.high;
  return {
    at,
    saturation,
    // Where they are not known, all of it may be theirs.
    others: others === undefined ? { high: true } : cooled ? LOW : stepped(state.others, at, others, share),
  };
};

export const isHot = (state: LinkState): boolean => state.saturation.high && state.others.high;
