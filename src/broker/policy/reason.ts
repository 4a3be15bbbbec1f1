/** A decision in one line that an operator understands: what was done and why, with the numbers. */
import type { BrokerTerms, BrokerZone } from '../../leaves/broker.js';
import { formatDuration } from '../../leaves/duration.js';
import { formatRate, formatSizeBesideRates } from '../../leaves/quantity.js';
import type { Congestion, Observation } from './decision.js';
import type { DiskLimit } from './disk-limit.js';
import type { Laxity } from './laxity.js';
import { dangerThreshold, STALLED_PERIODS } from './laxity.js';
import type { NetworkLimit } from './network-limit.js';

export interface Grounds {
  readonly terms: BrokerTerms;
  readonly observation: Observation;
  readonly congestion: Congestion;
  readonly laxity: Laxity;
  readonly inDanger: boolean;
  readonly network: NetworkLimit;
  readonly zoneBefore: BrokerZone | undefined;
  readonly limitBefore: number;
  readonly disk: DiskLimit;
  readonly askOn: readonly string[];
  readonly netRate: number;
}

const NAMES_MAX = 3;

const names = (list: readonly string[]): string =>
  list.length <= NAMES_MAX
    ? list.join(', ')
    : `${list.slice(0, NAMES_MAX).join(', ')} and ${list.length - NAMES_MAX} more`;

/** Rounded down, so that 2.96 of 3.0 does not read `3.0 of 3.0`. */
const ratioText = (ratio: number): string =>
  ratio < 1000 ? (Math.floor(ratio * 10) / 10).toFixed(1) : 'above 1000';

const laxityText = (terms: BrokerTerms, laxity: Laxity): string => {
  if (laxity.timeToDeadline === undefined) return 'no deadline';
  if (laxity.ratio === undefined) return 'time left unknown';
  return `laxity ${ratioText(laxity.ratio)}${laxity.zone === 'warning' ? ` (warning at ${terms.warning})` : ''}`;
};

const congestionText = ({ hotLinks, askedBy }: Congestion): string =>
  [
    ...(hotLinks.length > 0 ? [`${names(hotLinks)} hot`] : []),
    ...(askedBy.length > 0 ? [`asked by ${names(askedBy)}`] : []),
  ].join(', ');

const dangerText = ({ terms, laxity, askOn, zoneBefore }: Grounds): string => {
  const threshold = dangerThreshold(terms, zoneBefore);
  const asks = askOn.length > 0 ? `; asks on ${names(askOn)}` : '';
  if (laxity.timeToDeadline !== undefined && laxity.timeToDeadline <= 0)
    return `in danger: ${formatDuration(-laxity.timeToDeadline)} past its deadline${asks}`;
  if (laxity.stalledPeriods >= STALLED_PERIODS) return `in danger: nothing gets through${asks}`;
  return `in danger: ${ratioText(laxity.ratio ?? 0)} of ${Number(threshold.toFixed(2))}${asks}`;
};

const networkText = (network: NetworkLimit, terms: BrokerTerms, before: number): string => {
  const rate = formatRate(network.limit);
  const quiet = `quiet for ${network.memory.quietPeriods} of ${terms.quietPeriods + 1}`;
  switch (network.action) {
    case 'none':
      return 'no network limit';
    case 'reduce':
      if (network.limit < before) return `reduced to ${rate}`;
      return network.limit === terms.floor ? `at the floor of ${rate}` : `kept at ${rate}`;
    case 'hold':
      return `held at ${rate}, ${quiet}`;
    case 'raise':
      return `raised to ${rate}, ${quiet}`;
    case 'remove':
      return 'network limit removed';
    default:
      return network.action satisfies never;
  }
};

const lateText = (late: number | undefined): string =>
  late === undefined || late === Number.POSITIVE_INFINITY
    ? 'would not end'
    : late > 0
      ? `would end ${formatDuration(late)} late`
      : `would end ${formatDuration(-late)} before the deadline`;

const diskText = (disk: DiskLimit, { load }: Observation, netRate: number): readonly string[] => {
  const left = `${formatSizeBesideRates(load.left)} left at ${formatRate(netRate)} ${lateText(disk.late)}`;
  switch (disk.action) {
    case 'limit':
      return [`guest limited to ${formatRate(disk.limit)}: ${left} without`];
    case 'floor':
      return [`guest limited to the floor of ${formatRate(disk.limit)}, which is not enough: ${left}`];
    case 'release':
      return ['guest no longer limited'];
    case 'wait':
      return [`${left}; a limit of the guest can wait`];
    case 'keep':
      return Number.isFinite(disk.limit) ? [`guest still limited to ${formatRate(disk.limit)}`] : [];
    case 'none':
      return [];
    default:
      return disk.action satisfies never;
  }
};

export const reasonOf = (grounds: Grounds): string => {
  const { terms, observation, congestion, laxity, network, disk } = grounds;
  const how = networkText(network, terms, grounds.limitBefore);
  const why = network.action === 'reduce' ? `: ${congestionText(congestion)}` : '';
  const first = grounds.inDanger
    ? [dangerText(grounds), ...(network.action === 'none' ? [] : [how])]
    : [`${how}${why}, ${laxityText(terms, laxity)}`];
  return [...first, ...diskText(disk, observation, grounds.netRate)].join('; ');
};
