/** The terms a broker works with where none were asked for. */
import type { BrokerTerms, PathLink } from '../leaves/broker.js';
import { bytesPerSecond, millis } from '../leaves/units.js';

/** The paper's evaluation (section V-B) has 300 % and 400 %. */
const DANGER_DEFAULT = 3;
/** Above `danger`. */
const WARNING_ABOVE_DANGER = 1;
const QUIET_PERIODS_DEFAULT = 5;
const STEP_DEFAULT = bytesPerSecond(10_000_000);
/** Part of the capacity of the narrowest link of the path. */
const STEP_SHARE = 0.1;
const FLOOR_DEFAULT = bytesPerSecond(1_000_000);
const DISK_FLOOR_DEFAULT = bytesPerSecond(1_000_000);
const VMM_TIME_DEFAULT = millis(10_000);

/** `asked` with its gaps filled; the step follows the capacities of the path where one is known. */
export const completeTerms = (asked: Partial<BrokerTerms>, path: readonly PathLink[] = []): BrokerTerms => {
  const capacity = Math.min(...path.map((link) => link.capacity ?? Number.POSITIVE_INFINITY));
  const danger = asked.danger ?? Math.min(DANGER_DEFAULT, asked.warning ?? DANGER_DEFAULT);
  return {
    danger,
    warning: asked.warning ?? danger + WARNING_ABOVE_DANGER,
    important: asked.important ?? false,
    ...(asked.period !== undefined && { period: asked.period }),
    quietPeriods: asked.quietPeriods ?? QUIET_PERIODS_DEFAULT,
    step: asked.step ?? (Number.isFinite(capacity) ? bytesPerSecond(capacity * STEP_SHARE) : STEP_DEFAULT),
    floor: asked.floor ?? FLOOR_DEFAULT,
    diskFloor: asked.diskFloor ?? DISK_FLOOR_DEFAULT,
    vmmTime: asked.vmmTime ?? VMM_TIME_DEFAULT,
  };
};
