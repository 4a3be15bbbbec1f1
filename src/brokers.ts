/** Composition of a daemon's brokers: hot spots, the control points of its migrations, the brokers of other daemons. */
import { BrokerHost } from './broker/broker-host.js';
import type { HotSpotsConfig } from './broker/hot-spots/config.js';
import type { OpenHotSpots } from './broker/hot-spots/open-hot-spots.js';
import { openHotSpots } from './broker/hot-spots/open-hot-spots.js';
import { meterOwnTraffic } from './broker/hot-spots/own-traffic.js';
import { decide } from './broker/policy/decide.js';
import type { Observation } from './broker/policy/decision.js';
import type { ControlPoints, Peers } from './broker/ports.js';
import { type ControlClient, connect } from './control/control-client.js';
import type { BackOffAnswer, BackOffRequest, BrokerControl, Sharer } from './leaves/broker.js';
import type { Clock } from './leaves/clock.js';
import { MigrateFsError } from './leaves/errors.js';
import { parseHostPort } from './leaves/host-port.js';
import type { LogSink } from './leaves/log-sink.js';
import type { MigrationControl, MigrationRequest, MigrationSnapshot } from './leaves/migration.js';
import { isFinal } from './leaves/migration.js';
import type { TlsIdentity } from './leaves/tls-identity.js';
import type { BytesPerSecond } from './leaves/units.js';
import { bytes } from './leaves/units.js';

/** Daemons to which a connection is kept. */
const CONNECTIONS_MAX = 64;

interface BrokersOptions {
  readonly migrations: MigrationControl;
  readonly hotSpots: HotSpotsConfig;
  /** Of all migrations of this host together. */
  readonly netLimit: BytesPerSecond;
  /** Control address of this daemon. */
  readonly ownAddress: () => string;
  readonly tls?: TlsIdentity | undefined;
  readonly insecure: boolean;
  readonly clock: Clock;
  readonly log: LogSink;
}

export interface OpenBrokers {
  readonly control: BrokerControl;
  readonly hotSpots: OpenHotSpots;
  /** Starts a migration, and its broker unless it is to have none. */
  start(request: MigrationRequest): Promise<MigrationSnapshot>;
  /** Ends every broker, with no limit of theirs left in force. */
  close(): Promise<void>;
}

/** Connections to the control ports of other daemons. One that failed is made anew, so that no back-off of its own delays it. */
class PeerConnections implements Peers, Disposable {
  readonly #tls: TlsIdentity | undefined;
  readonly #clients = new Map<string, ControlClient>();

  constructor(tls: TlsIdentity | undefined) {
    this.#tls = tls;
  }

  async backOff({ server }: Sharer, request: BackOffRequest, signal: AbortSignal): Promise<BackOffAnswer> {
    const client = this.#clientOf(server);
    try {
      return await client.backOff(request, signal);
    } catch (error) {
      if (error instanceof MigrateFsError && error.code === 'UNAVAILABLE') this.#drop(server, client);
      throw error;
    }
  }

  [Symbol.dispose](): void {
    for (const client of this.#clients.values()) client.close();
    this.#clients.clear();
  }

  #clientOf(server: string): ControlClient {
    const known = this.#clients.get(server);
    const client = known ?? connect({ server: parseHostPort(server), tls: this.#tls });
    // The one that was used last goes last.
    this.#clients.delete(server);
    this.#clients.set(server, client);
    const [oldest] = this.#clients;
    if (this.#clients.size > CONNECTIONS_MAX && oldest) this.#drop(...oldest);
    return client;
  }

  #drop(server: string, client: ControlClient): void {
    if (this.#clients.get(server) === client) this.#clients.delete(server);
    client.close();
  }
}

/** Settles like `promise`, or rejects with the signal's reason as soon as it aborts. */
const untilAborted = <T>(promise: Promise<T>, signal: AbortSignal): Promise<T> =>
  new Promise((resolve, reject) => {
    const onAbort = (): void => reject(signal.reason as Error);
    if (signal.aborted) onAbort();
    signal.addEventListener('abort', onAbort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
  });

/** Before and between the phases that copy, there is nothing to estimate from. */
const noLoad = ({ images, bytesLeft }: MigrationSnapshot): Observation['load'] => ({
  left: bytesLeft,
  allocated: bytes(images.reduce((sum, { allocated }) => sum + allocated, 0)),
  netRate: 0,
  dirtyRate: 0,
  writeRate: 0,
  netDeviation: 0,
  dirtyDeviation: 0,
  converging: false,
});

/** The control points of one migration: its broker can reach nothing else. */
const pointsOf = (migrations: MigrationControl, clock: Clock, id: string): ControlPoints => ({
  observe: async (signal) => {
    try {
      const snapshot = await untilAborted(migrations.get(id), signal);
      const { state } = snapshot;
      if (isFinal(state)) return 'ended';
      return { at: clock.wall(), state, load: snapshot.load ?? noLoad(snapshot) };
    } catch (error) {
      if (error instanceof MigrateFsError && error.code === 'NOT_FOUND') return 'ended';
      throw error;
    }
  },
  setNetworkLimit: async (netLimit, signal) => {
    await untilAborted(migrations.setLimits(id, { netLimit }, 'broker'), signal);
  },
  setDiskLimit: async (diskLimit, signal) => {
    await untilAborted(migrations.setLimits(id, { diskLimit }, 'broker'), signal);
  },
});

/** FAILED_PRECONDITION: the alert port cannot be served. */
export const openBrokers = async (options: BrokersOptions): Promise<OpenBrokers> => {
  const { migrations, netLimit, ownAddress, tls, insecure, clock, log } = options;
  const own = meterOwnTraffic(migrations, clock);
  const hotSpots = await openHotSpots(options.hotSpots, {
    clock,
    log,
    ownTraffic: own.traffic,
    tls,
    insecure,
  }).catch((error: unknown) => {
    own.close();
    throw error;
  });
  const peers = new PeerConnections(tls);
  const host = new BrokerHost({
    ownAddress,
    hostLimit: netLimit,
    hotSpots,
    peers,
    pointsOf: (id) => pointsOf(migrations, clock, id),
    decide,
    clock,
    log,
  });
  const unwatch = migrations.watch(({ id, role, state }) => {
    if (role === 'source' && isFinal(state)) host.end(id);
  });
  return {
    control: host,
    hotSpots,
    start: async ({ broker = {}, ...request }) => {
      const { requestId } = request;
      // One that runs already has the broker it was started with, or none.
      const known =
        requestId !== undefined && (await migrations.list()).some((each) => each.requestId === requestId);
      const snapshot = await migrations.start(request);
      const { id, deadline, state, peer } = snapshot;
      if (!known && !isFinal(state))
        host.begin({ id, target: parseHostPort(peer).host, deadline, choice: broker });
      return snapshot;
    },
    close: async () => {
      unwatch();
      await host.close();
      peers[Symbol.dispose]();
      own.close();
      await hotSpots.close();
    },
  };
};
