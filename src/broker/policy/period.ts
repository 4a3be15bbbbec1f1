import type { BrokerTerms } from '../../leaves/broker.js';
import type { Millis } from '../../leaves/units.js';
import { millis } from '../../leaves/units.js';

/** A small part of the time to the deadline: with the paper's 60 s, a deadline of 200 s gets three decisions. */
const PERIODS_TO_DEADLINE = 50;
const PERIOD_MIN = millis(1_000);
const PERIOD_MAX = millis(60_000);
/** Nothing to be late for, but others may want the network. */
const PERIOD_WITHOUT_DEADLINE = millis(10_000);

/** Between two decisions. From the time to the deadline at the start, so that it stays what it is. */
export const decisionPeriod = (
  terms: Pick<BrokerTerms, 'period'>,
  startedAt: Millis,
  deadline?: Millis,
): Millis => {
  if (terms.period !== undefined) return terms.period;
  if (deadline === undefined) return PERIOD_WITHOUT_DEADLINE;
  return millis(Math.min(Math.max((deadline - startedAt) / PERIODS_TO_DEADLINE, PERIOD_MIN), PERIOD_MAX));
};
