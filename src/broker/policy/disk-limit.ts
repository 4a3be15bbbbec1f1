/** The weakest limit of the guest's writes that makes Expression 1 hold again, applied late and released early. */
import type { TransferLoad } from '../../leaves/time-left.js';
import { expectedLeftWith } from '../../leaves/time-left.js';
import type { BytesPerSecond } from '../../leaves/units.js';
import { bytesPerSecond, millis, UNLIMITED } from '../../leaves/units.js';
import type { Case, Decision, DiskMemory, Observation } from './decision.js';
import type { Laxity } from './laxity.js';
import { isCopying } from './laxity.js';

/** Expression 1 counts as endangered when less than this part of what is needed would be to spare. */
export const DISK_MARGIN = 0.1;
/** Between two looks that follow each other; a pause of the migration, or a clock that was set, is no such time. */
const DISK_LOOK_MAX = millis(60_000);
/** And less than this, or two periods: the margin melts as the end comes near, while decisions take what they take. */
export const DISK_SLACK = millis(2_000);
/**
 * While a guest at the floor would leave this many times what is needed, and twice the slack, a limit can wait: what is limited early is
 * written late, and dirty again when it counts; and the guest may stop, or the network have more to give, by itself.
 */
export const DISK_CAN_WAIT = 1.5;
/** Expression 1 has to be endangered at this many decisions in a row before a guest is limited. */
export const DISK_CONFIRMATIONS = 2;
/**
 * A limit is released when Expression 1 holds even if the guest wrote this part more than it wants to, and when the
 * guest does not press against it, or another limit could wait.
 */
export const DISK_RELEASE = 0.1;
/** A limit that shortens what is needed by no more than this part would only be in the guest's way. */
export const DISK_GAIN_MIN = 0.01;
/** A guest that writes at least this part of its limit would write more without it. */
const PRESSING = 0.9;
/** Of the way to a raised limit, what the smoothed rate of a guest that presses goes in a period at least. */
const FOLLOWS = 0.3;
/** What a guest wanted before it was limited is forgotten by this factor a period while it does not press. */
const DEMAND_DECAY = 0.7;
/** The search for the limit goes down in so many steps, and then into the one that suffices. */
const SEARCH_STEPS = 32;
/** It ends at this part of it. */
const PRECISION = 1 / 1024;

export type DiskAction = 'none' | 'wait' | 'limit' | 'floor' | 'keep' | 'release';

export interface DiskLimit {
  readonly limit: BytesPerSecond;
  readonly memory: DiskMemory;
  readonly action: DiskAction;
  /** Milliseconds by which it would end after the deadline, without a limit (or, `floor`, with it). */
  readonly late?: number;
}

/** The load as it would be if the guest wrote at `rate`: as many distinct blocks for each byte as now. */
const writing = (load: TransferLoad, rate: number): TransferLoad => ({
  ...load,
  writeRate: rate,
  dirtyRate: load.writeRate > 0 ? (load.dirtyRate * rate) / load.writeRate : load.dirtyRate,
});

const isPressing = (load: TransferLoad, limit: BytesPerSecond): boolean => load.writeRate >= limit * PRESSING;

/** What the guest would write without a limit, as far as that is known under one. */
const demandOf = (load: TransferLoad, limit: BytesPerSecond, { demand, reachable }: DiskMemory): number => {
  if (limit === UNLIMITED) return load.writeRate;
  const faded = isPressing(load, reachable ?? limit) ? demand : demand * DEMAND_DECAY;
  return Math.max(faded, load.writeRate);
};

/** The smoothed rate follows a limit that is lowered from above, which is pressing, and one that is raised from below. */
const reachableAfter = (
  limit: BytesPerSecond,
  before: BytesPerSecond,
  { reachable = before }: DiskMemory,
): Pick<DiskMemory, 'reachable'> => {
  if (limit === UNLIMITED) return {};
  return { reachable: reachable < limit ? bytesPerSecond(reachable + (limit - reachable) * FOLLOWS) : limit };
};

/** Above 1, and below the ratio of a warning: the limit must not make itself look superfluous. */
const requiredRatio = (warning: number): number => Math.min(1 + DISK_MARGIN, (1 + warning) / 2);

/**
 * The next limit for a migration that is expected to send at `netRate`. None unless it copies towards a deadline that
 * is still to come, with a ratio at or below the warning threshold, and Expression 1 does not hold. While the time left
 * is unknown a limit stays as it is.
 */
export const diskLimit = (
  subject: Case,
  observation: Observation,
  laxity: Laxity,
  netRate: number,
  previous: Pick<Decision, 'diskLimit' | 'disk'> | undefined,
): DiskLimit => {
  const before = previous?.diskLimit ?? UNLIMITED;
  const memory = previous?.disk ?? { demand: 0, endangeredPeriods: 0, at: observation.at };
  const found = nextLimit(subject, observation, laxity, netRate, before, memory);
  return { ...found, memory: { ...found.memory, ...reachableAfter(found.limit, before, memory) } };
};

const nextLimit = (
  { terms, deadline }: Case,
  { state, load, at }: Observation,
  { ratio, timeToDeadline }: Laxity,
  netRate: number,
  before: BytesPerSecond,
  memory: DiskMemory,
): DiskLimit => {
  const none = (demand: number, endangeredPeriods = 0): DiskLimit => ({
    limit: UNLIMITED,
    memory: { demand, endangeredPeriods, at },
    action: before === UNLIMITED ? 'none' : 'release',
  });
  if (!isCopying(state) && state !== 'interrupted' && state !== 'paused') return none(0);
  if (deadline === undefined || deadline <= at) return none(load.writeRate);
  if (ratio === undefined || timeToDeadline === undefined)
    return { limit: before, memory: { ...memory, at }, action: 'keep' };
  // Under a limit the ratio says how little a limited guest leaves, not that the limit is superfluous.
  if (before === UNLIMITED && ratio > terms.warning) return none(load.writeRate);

  const demand = demandOf(load, before, memory);
  const needed = (wanted: number, limit: BytesPerSecond): number => {
    const left = expectedLeftWith(writing(load, wanted), { netRate, writeLimit: limit });
    return left === undefined ? Number.POSITIVE_INFINITY : left + terms.vmmTime;
  };
  const required = requiredRatio(terms.warning);
  const slack = Math.max(DISK_SLACK, 2 * Math.min(at - memory.at, DISK_LOOK_MAX));
  const holds = (wanted: number, limit: BytesPerSecond): boolean =>
    needed(wanted, limit) * required + slack <= timeToDeadline;
  // Writes that leave more dirty may end the rounds sooner, so that more is not always worse.
  const wishes = before === UNLIMITED ? [demand] : [demand, demand * (1 + DISK_RELEASE)];
  const free = needed(demand, UNLIMITED);
  const floored = needed(demand, terms.diskFloor);
  const canWait = floored * DISK_CAN_WAIT + 2 * slack <= timeToDeadline;
  const fine = wishes.every((wanted) => holds(wanted, UNLIMITED));
  if (fine && (canWait || !isPressing(load, memory.reachable ?? before))) return none(demand);
  if (demand <= terms.diskFloor || floored >= free * (1 - DISK_GAIN_MIN)) return none(demand);

  const endangeredPeriods = Math.min(memory.endangeredPeriods + 1, DISK_CONFIRMATIONS);
  const late = free - timeToDeadline;
  if (before === UNLIMITED) {
    const waiting = { ...none(demand, endangeredPeriods), late };
    if (canWait) return { ...waiting, action: 'wait' };
    if (endangeredPeriods < DISK_CONFIRMATIONS) return waiting;
  }
  if (fine) return { limit: before, memory: { demand, endangeredPeriods, at }, action: 'keep' };
  const next = { demand, endangeredPeriods, at };
  const limit = weakest(terms.diskFloor, demand, (tried) => wishes.every((wanted) => holds(wanted, tried)));
  return limit === undefined
    ? { limit: terms.diskFloor, memory: next, action: 'floor', late: floored - timeToDeadline }
    : { limit, memory: next, action: 'limit', late };
};

/**
 * The largest limit between `floor` and `demand` that suffices; undefined where none does. Searched from above in steps
 * first: with one round of copying more or less the time left may jump, so that a lower limit is not always better.
 */
const weakest = (
  floor: BytesPerSecond,
  demand: number,
  suffices: (limit: BytesPerSecond) => boolean,
): BytesPerSecond | undefined => {
  let enough: number | undefined;
  let tooMuch = demand;
  for (let step = 1; enough === undefined; step++) {
    const tried = Math.max(floor, demand * (1 - step / SEARCH_STEPS));
    if (suffices(bytesPerSecond(tried))) enough = tried;
    else if (tried === floor) return undefined;
    else tooMuch = tried;
  }
  while (tooMuch - enough > Math.max(1, enough * PRECISION)) {
    const middle: number = (enough + tooMuch) / 2;
    if (suffices(bytesPerSecond(middle))) enough = middle;
    else tooMuch = middle;
  }
  return bytesPerSecond(Math.max(floor, Math.floor(enough)));
};
