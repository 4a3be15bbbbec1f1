/** A broker as rows of a table; pure, with the time as an argument. */
import type { BrokerSnapshot, PathLink } from '../leaves/broker.js';
import { formatDuration } from '../leaves/duration.js';
import type { MigrationSnapshot } from '../leaves/migration.js';
import { formatRate } from '../leaves/quantity.js';
import type { BytesPerSecond, Millis } from '../leaves/units.js';

/** `10.0 MB/s (broker; operator 50.0 MB/s)`. */
const limitWords = (
  limit: BytesPerSecond,
  operator: BytesPerSecond | undefined,
  broker: BytesPerSecond | undefined,
): string => {
  if (operator === undefined && broker === undefined) return formatRate(limit);
  if (broker === undefined) return `${formatRate(limit)} (operator)`;
  if (operator === undefined) return `${formatRate(limit)} (broker)`;
  return broker < operator
    ? `${formatRate(limit)} (broker; operator ${formatRate(operator)})`
    : `${formatRate(limit)} (operator; broker ${formatRate(broker)})`;
};

/** The limits that count, and whose they are. */
export const limitsLine = (snapshot: MigrationSnapshot): string => {
  const { netLimit, diskLimit } = snapshot;
  const network = limitWords(netLimit, snapshot.operatorNetLimit, snapshot.brokerNetLimit);
  const disk = limitWords(diskLimit, snapshot.operatorDiskLimit, snapshot.brokerDiskLimit);
  return `network ${network}, disk ${disk}`;
};

const linkWords = ({ link, capacity, sharers }: PathLink): string => {
  const shared = sharers.length === 0 ? '' : `, shared with ${sharers.length}`;
  return `${link} (${capacity === undefined ? 'capacity unknown' : formatRate(capacity)}${shared})`;
};

const zoneWords = ({ zone, ratio, terms }: BrokerSnapshot): string => {
  const thresholds = terms.important
    ? `important: danger at ${terms.warning}`
    : `danger below ${terms.danger}, warning at ${terms.warning}`;
  const laxity = ratio === undefined ? 'laxity unknown' : `laxity ${ratio.toFixed(1)}`;
  return `${zone}, ${laxity} (${thresholds})`;
};

type Row = readonly [string, string];

export const brokerRows = (broker: BrokerSnapshot, now: Millis): readonly Row[] => {
  const { decidedAt, decisions, period } = broker;
  const decided =
    decidedAt === undefined
      ? ''
      : ` (${formatDuration(Math.max(0, now - decidedAt))} ago, decision ${decisions}, every ${formatDuration(period)})`;
  const path: Row[] = broker.path.length === 0 ? [] : [['path', broker.path.map(linkWords).join(', ')]];
  return broker.ended
    ? [['broker', `ended after ${decisions} decisions, the last: ${broker.reason}`]]
    : [['broker', zoneWords(broker)], ['decided', `${broker.reason}${decided}`], ...path];
};
