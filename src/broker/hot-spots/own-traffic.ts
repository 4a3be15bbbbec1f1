/** What the migrations of this host put on the network, by peer, at the moment. */
import type { Clock } from '../../leaves/clock.js';
import { parseHostPort } from '../../leaves/host-port.js';
import type { MigrationControl, MigrationSnapshot } from '../../leaves/migration.js';
import { isFinal } from '../../leaves/migration.js';
import type { Millis } from '../../leaves/units.js';
import { millis } from '../../leaves/units.js';

/** Payload bytes per second between this host and one peer. */
export interface PeerTraffic {
  /** Name or address, without a port; absent: not known, so that it may cross any interface. */
  readonly host?: string;
  /** `Infinity`: not known yet. */
  readonly sent: number;
  readonly received: number;
}

/** Who knows it. */
export type OwnTraffic = () => readonly PeerTraffic[];

interface Count {
  /** Monotonic. */
  readonly at: Millis;
  readonly sent: number;
  readonly acknowledged: number;
}

interface Meter {
  readonly host: string | undefined;
  readonly role: MigrationSnapshot['role'];
  counts: Count[];
}

/**
 * Rates are taken over as much at least, so that what is in flight at its beginning (a quarter of a second's worth) is a
 * small part of it; snapshots come about twice a second. What was sent before others came is in it for as long.
 */
const WINDOW = millis(2000);
/** Without a snapshot for so long, nothing moves. */
const SILENT = millis(4000);
const METERS_MAX = 4096;

/** A source that listens on all addresses names none of them. */
const ANY_ADDRESS = ['0.0.0.0', '::'];

const hostOf = (peer: string): string | undefined => {
  try {
    const { host } = parseHostPort(peer);
    return ANY_ADDRESS.includes(host) ? undefined : host;
  } catch {
    return undefined;
  }
};

const perSecond = (bytes: number, from: Count, to: Count): number =>
  to.at > from.at ? (Math.max(bytes, 0) * 1000) / (to.at - from.at) : 0;

/**
 * What can have been on the wire at most: bytes are sent before, and acknowledged after. In between they wait in the
 * system's buffers, which empty themselves also while this process gets no turn.
 */
const mostBetween = (from: Count, to: Count): number => perSecond(to.sent - from.acknowledged, from, to);

const rateBetween = (from: Count, to: Count): number =>
  perSecond(Math.max(to.sent - from.sent, to.acknowledged - from.acknowledged), from, to);

/** Over the window, or since the last count but one where that is more: what has just begun must not look like others'. */
const rateOf = ({ counts }: Meter, now: Millis): number => {
  const last = counts.at(-1);
  const before = counts.at(-2);
  if (!last || now - last.at > SILENT) return 0;
  // It has just begun: how much of what crosses the interface is its own cannot be told.
  if (!before) return Number.POSITIVE_INFINITY;
  return Math.max(mostBetween(counts[0]!, last), rateBetween(before, last));
};

const noted = (counts: readonly Count[], next: Count): Count[] => {
  const last = counts.at(-1);
  if (last && (next.sent < last.sent || next.at - last.at > SILENT)) return [next];
  if (last?.at === next.at) return counts.slice(0, -1).concat(next);
  const grown = [...counts, next];
  // The oldest is the last one that is a whole window old.
  const recent = grown.findIndex(({ at }) => next.at - at < WINDOW);
  return grown.slice(Math.max(0, recent - 1));
};

/** Counts from the snapshots of migrations, in both roles. `close` ends it. */
export const meterOwnTraffic = (
  migrations: Pick<MigrationControl, 'watch'>,
  clock: Clock,
): { readonly traffic: OwnTraffic; close(): void } => {
  const meters = new Map<string, Meter>();
  const note = (snapshot: MigrationSnapshot): void => {
    const { id, role, state, peer, bytesSent, bytesAcked = bytesSent } = snapshot;
    const key = `${role} ${id}`;
    if (isFinal(state)) return void meters.delete(key);
    let meter = meters.get(key);
    if (!meter) {
      if (meters.size >= METERS_MAX) return;
      meter = { host: hostOf(peer), role, counts: [] };
      meters.set(key, meter);
    }
    meter.counts = noted(meter.counts, { at: clock.now(), sent: bytesSent, acknowledged: bytesAcked });
  };
  return {
    traffic: () => {
      const now = clock.now();
      return [...meters.values()].map((meter) => {
        const rate = rateOf(meter, now);
        const [sent, received] = meter.role === 'source' ? [rate, 0] : [0, rate];
        return { ...(meter.host === undefined ? {} : { host: meter.host }), sent, received };
      });
    },
    close: migrations.watch(note),
  };
};
