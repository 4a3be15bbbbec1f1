import type {
  BackOffAnswer,
  BackOffRequest,
  BrokerChoice,
  BrokerControl,
  BrokerSnapshot,
  PathLink,
  Sharer,
} from '../leaves/broker.js';
import type { Clock } from '../leaves/clock.js';
import { MigrateFsError } from '../leaves/errors.js';
import type { LogSink } from '../leaves/log-sink.js';
import type { BytesPerSecond, Millis } from '../leaves/units.js';
import { UNLIMITED } from '../leaves/units.js';
import type { Decide } from './broker.js';
import { Broker } from './broker.js';
import type { ControlPoints, LocalHotSpots, Peers } from './ports.js';

/** Ended brokers whose last word is kept. */
const ENDED_MAX = 256;
/** Name of the limit that all migrations of a daemon share, as a link. */
const HOST_LIMIT_LINK = 'net-limit of the daemon';

export interface BrokerHostOptions {
  /** Control address of this daemon, as its own brokers are told of it. */
  readonly ownAddress: () => string;
  /** Of all migrations of this host together. */
  readonly hostLimit: BytesPerSecond;
  readonly hotSpots: LocalHotSpots;
  readonly peers: Peers;
  /** The control points of one migration, and of no other. */
  readonly pointsOf: (migrationId: string) => ControlPoints;
  readonly decide: Decide;
  readonly clock: Clock;
  readonly log: LogSink;
}

/** A migration that began here. */
export interface ManagedMigration {
  readonly id: string;
  /** Name or address of the target's host. */
  readonly target: string;
  /** Wall clock. */
  readonly deadline?: Millis | undefined;
  readonly choice: BrokerChoice;
}

interface Active {
  readonly broker: Broker;
  readonly target: string;
  /** Of this host, towards the target; as of the last look. */
  link: string | undefined;
  readonly stop: AbortController;
  readonly ran: Promise<void>;
}

const noBroker = (id: string): MigrateFsError =>
  new MigrateFsError('NOT_FOUND', `no broker of migration ${id} here: it has none, or is not a source here`);

/** The brokers of a host, one for each migration whose source is here: as many as the daemon has migrations. */
export class BrokerHost implements BrokerControl, AsyncDisposable {
  readonly #options: BrokerHostOptions;
  readonly #active = new Map<string, Active>();
  readonly #ended = new Map<string, BrokerSnapshot>();
  #closed = false;

  constructor(options: BrokerHostOptions) {
    this.#options = options;
  }

  /** Gives a migration its broker, unless it is to have none or has one. */
  begin({ id, target, deadline, choice }: ManagedMigration): void {
    if (choice === 'off' || this.#closed || this.#active.has(id) || this.#ended.has(id)) return;
    const { hotSpots, pointsOf, decide, clock, log } = this.#options;
    const broker = new Broker({
      migrationId: id,
      asked: choice,
      deadline,
      localLinks: () => this.#localLinks(id),
      points: pointsOf(id),
      hotSpots,
      peers: this.#peers,
      decide,
      clock,
      log,
    });
    const stop = new AbortController();
    const ran = broker
      .run(stop.signal)
      .then(() => this.#end(id, broker))
      // A rejection that nobody handles would end the daemon, and the mount with it.
      .catch((error: unknown) => log('error', 'a broker has failed', { migration: id, err: error }));
    this.#active.set(id, { broker, target, link: hotSpots.linkTowards(target), stop, ran });
  }

  /** The migration has ended: no need to wait for the next look. */
  end(id: string): void {
    this.#active.get(id)?.stop.abort();
  }

  async get(migrationId: string): Promise<BrokerSnapshot> {
    const snapshot = this.#active.get(migrationId)?.broker.snapshot ?? this.#ended.get(migrationId);
    if (!snapshot) throw noBroker(migrationId);
    return snapshot;
  }

  async list(): Promise<readonly BrokerSnapshot[]> {
    return [...this.#ended.values(), ...[...this.#active.values()].map(({ broker }) => broker.snapshot)];
  }

  async setPath(migrationId: string, path: readonly PathLink[]): Promise<BrokerSnapshot> {
    const active = this.#active.get(migrationId);
    if (active) {
      active.broker.setPath(path);
      return active.broker.snapshot;
    }
    if (!this.#ended.has(migrationId)) throw noBroker(migrationId);
    throw new MigrateFsError('FAILED_PRECONDITION', `migration ${migrationId} has ended`);
  }

  async backOff(request: BackOffRequest): Promise<BackOffAnswer> {
    const active = this.#active.get(request.migrationId);
    if (active) return active.broker.backOff(request);
    if (this.#ended.has(request.migrationId)) return 'ended';
    throw noBroker(request.migrationId);
  }

  /** Ends every broker, with no limit of theirs left in force. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const { stop } of this.#active.values()) stop.abort();
    await Promise.all([...this.#active.values()].map(({ ran }) => ran));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Brokers of this host are reached without the network. */
  readonly #peers: Peers = {
    backOff: (sharer, request, signal) =>
      sharer.server === this.#options.ownAddress()
        ? this.backOff(request)
        : this.#options.peers.backOff(sharer, request, signal),
  };

  #end(id: string, broker: Broker): void {
    this.#active.delete(id);
    // Without its path, which may name many sharers.
    this.#ended.set(id, { ...broker.snapshot, path: [] });
    const [oldest] = this.#ended.keys();
    if (this.#ended.size > ENDED_MAX && oldest !== undefined) this.#ended.delete(oldest);
  }

  /** The interface towards the target, and the limit of the host; shared with every migration here that uses them. */
  #localLinks(id: string): readonly PathLink[] {
    const active = this.#active.get(id);
    if (!active) return [];
    const { hotSpots, hostLimit } = this.#options;
    active.link = hotSpots.linkTowards(active.target);
    const { link } = active;
    const server = this.#options.ownAddress();
    const others = [...this.#active].filter(([other]) => other !== id);
    const sharersOf = (use: (active: Active) => boolean): readonly Sharer[] =>
      others.filter(([, other]) => use(other)).map(([migrationId]) => ({ server, migrationId }));
    const links: PathLink[] = [];
    if (link !== undefined) {
      const capacity = hotSpots.loads().find((load) => load.link === link)?.capacity;
      links.push({
        link,
        sharers: sharersOf((other) => other.link === link),
        ...(capacity !== undefined && { capacity }),
      });
    }
    if (hostLimit !== UNLIMITED)
      links.push({ link: HOST_LIMIT_LINK, capacity: hostLimit, sharers: sharersOf(() => true) });
    return links;
  }
}
