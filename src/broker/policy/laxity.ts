/** How much time a migration has for what it needs (paper, section IV; Expression 1 as DESIGN 2 corrects it). */
import type { BrokerTerms, BrokerZone } from '../../leaves/broker.js';
import type { MigrationState } from '../../leaves/migration.js';
import { timeLeft, timeLeftWith } from '../../leaves/time-left.js';
import type { Case, Decision, Observation } from './decision.js';

/** Danger is left only when the ratio is this much above the threshold, so that a ratio at it does not flip. */
export const DANGER_HYSTERESIS = 0.05;
/** What is given up for others leaves the ratio this much above the danger threshold: beyond the hysteresis. */
const YIELD_MARGIN = 0.1;
/** Decisions in a row without a byte acknowledged, while copying, after which it counts as never getting there. */
export const STALLED_PERIODS = 3;
/** A smoothed rate never gets back to 0: below this many bytes per second nothing is acknowledged. */
const ACKNOWLEDGED_MIN = 1;

export interface Laxity {
  readonly zone: BrokerZone;
  /** Time to deadline divided by what is needed; 0 where it never gets there or is late already. */
  readonly ratio?: number;
  /** Milliseconds; negative once the deadline has passed. Absent without one. */
  readonly timeToDeadline?: number;
  /** Milliseconds until the hypervisor is done; `Infinity`: never at these rates. Absent while unknown. */
  readonly needed?: number;
  readonly stalledPeriods: number;
}

/** States in which the rates say how fast the copying gets on. */
const MEASURED: readonly MigrationState[] = ['bulk-copy', 'dirty-resend', 'mirroring', 'cutover'];
export const isMeasured = (state: MigrationState): boolean => MEASURED.includes(state);

/** States in which the broker's network limit decides what is sent. */
export const isCopying = (state: MigrationState): boolean =>
  state === 'bulk-copy' || state === 'dirty-resend';

/** Below this ratio it is in danger. Important migrations face it as soon as others are warned. */
export const dangerThreshold = (terms: BrokerTerms, previous: BrokerZone | undefined): number =>
  (terms.important ? terms.warning : terms.danger) * (previous === 'danger' ? 1 + DANGER_HYSTERESIS : 1);

/** Milliseconds of copying left: `Infinity` where it never ends at these rates, undefined while unknown. */
const copyingLeft = ({ state, load }: Observation, stalledPeriods: number): number | undefined => {
  if (!isMeasured(state)) return undefined;
  if (load.left > 0 && load.netRate < ACKNOWLEDGED_MIN)
    return stalledPeriods >= STALLED_PERIODS ? Number.POSITIVE_INFINITY : undefined;
  return timeLeft(load)?.expected ?? Number.POSITIVE_INFINITY;
};

const zoneOf = (terms: BrokerTerms, ratio: number, previous: BrokerZone | undefined): BrokerZone => {
  const threshold = dangerThreshold(terms, previous);
  // An important one asks at the threshold itself, where others are warned.
  if (ratio < threshold || (terms.important && ratio === threshold)) return 'danger';
  return ratio <= terms.warning ? 'warning' : 'calm';
};

/**
 * Without a deadline: calm, no ratio. Without an estimate (not copying, or nothing measured yet): the zone that it was
 * in, no ratio.
 */
export const laxity = (subject: Case, observation: Observation, previous: Decision | undefined): Laxity => {
  const { terms, deadline } = subject;
  const { state, load, at } = observation;
  const stalled = isCopying(state) && load.left > 0 && load.netRate < ACKNOWLEDGED_MIN;
  const stalledPeriods = stalled ? Math.min((previous?.stalledPeriods ?? 0) + 1, STALLED_PERIODS) : 0;
  if (deadline === undefined) return { zone: 'calm', stalledPeriods };
  const timeToDeadline = deadline - at;
  const copying = copyingLeft(observation, stalledPeriods);
  if (copying === undefined) return { zone: previous?.zone ?? 'calm', timeToDeadline, stalledPeriods };
  const needed = copying + terms.vmmTime;
  // A millisecond at least: with nothing left and no time for the hypervisor there is nothing to divide by.
  const ratio = Math.max(timeToDeadline, 0) / Math.max(needed, 1);
  return { zone: zoneOf(terms, ratio, previous?.zone), ratio, timeToDeadline, needed, stalledPeriods };
};

/**
 * The least network rate, up to the present one, at which the migration stays out of danger: no more than the rest can
 * be given up for others. Algorithm 2 alone halves the rate into danger, takes it back, and so on every few periods.
 * 0 without a deadline or an estimate.
 */
export const rateToKeep = (
  { terms }: Case,
  { load }: Observation,
  { ratio, timeToDeadline }: Laxity,
): number => {
  if (ratio === undefined || timeToDeadline === undefined) return 0;
  const allowed = timeToDeadline / (dangerThreshold(terms, undefined) * (1 + YIELD_MARGIN));
  const suffices = (netRate: number): boolean => {
    if (netRate < ACKNOWLEDGED_MIN) return false;
    const left = timeLeftWith(load, { netRate });
    return left !== undefined && left.expected + terms.vmmTime <= allowed;
  };
  let enough = load.netRate;
  let tooLittle = 0;
  if (!suffices(enough)) return enough;
  while (enough - tooLittle > Math.max(1, enough / 1024)) {
    const middle = (enough + tooLittle) / 2;
    if (suffices(middle)) enough = middle;
    else tooLittle = middle;
  }
  return enough;
};
