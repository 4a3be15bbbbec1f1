/** Brokers of one host in virtual time: scripted migrations, links and peers. */
import type { Decide } from '../../src/broker/broker.js';
import { BrokerHost } from '../../src/broker/broker-host.js';
import { decide } from '../../src/broker/policy/decide.js';
import type { Observation } from '../../src/broker/policy/decision.js';
import type { ControlPoints, LocalHotSpots, Peers } from '../../src/broker/ports.js';
import type { BackOffAnswer, BackOffRequest, BrokerChoice, Sharer } from '../../src/leaves/broker.js';
import { MigrateFsError } from '../../src/leaves/errors.js';
import type { LinkLoad } from '../../src/leaves/hot-spots.js';
import type { TransferLoad } from '../../src/leaves/time-left.js';
import type { BytesPerSecond } from '../../src/leaves/units.js';
import { bytes, millis, UNLIMITED } from '../../src/leaves/units.js';
import { ManualClock } from './manual-clock.js';

export const MB = 1e6;
export const OWN_ADDRESS = '10.0.0.1:7070';

/** A migration that sends as fast as its broker lets it, up to `rate`. */
export class FakeMigration implements ControlPoints {
  rate = 40 * MB;
  left = 100_000 * MB;
  state: Observation['state'] = 'bulk-copy';
  ended = false;
  /** Thrown by what is called next and later. */
  failure: { readonly observe?: Error; readonly set?: Error } = {};
  /** Limits that are being set are never set. */
  stuck = false;
  netLimit: BytesPerSecond = UNLIMITED;
  diskLimit: BytesPerSecond = UNLIMITED;
  readonly calls: string[] = [];
  readonly #clock: ManualClock;

  constructor(clock: ManualClock) {
    this.#clock = clock;
  }

  async #stuck(signal: AbortSignal): Promise<void> {
    if (!this.stuck) return;
    await new Promise((_, reject) => {
      if (signal.aborted) reject(signal.reason as Error);
      signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
    });
  }

  get load(): TransferLoad {
    return {
      left: bytes(this.left),
      allocated: bytes(this.left),
      netRate: Math.min(this.rate, this.netLimit),
      dirtyRate: 0,
      writeRate: 0,
      netDeviation: 0,
      dirtyDeviation: 0,
      converging: false,
    };
  }

  async observe(): Promise<Observation | 'ended'> {
    this.calls.push('observe');
    if (this.failure.observe) throw this.failure.observe;
    return this.ended ? 'ended' : { at: this.#clock.wall(), state: this.state, load: this.load };
  }

  async setNetworkLimit(limit: BytesPerSecond, signal: AbortSignal): Promise<void> {
    this.calls.push(`network ${limit}`);
    await this.#stuck(signal);
    if (this.failure.set) throw this.failure.set;
    this.netLimit = limit;
  }

  async setDiskLimit(limit: BytesPerSecond, signal: AbortSignal): Promise<void> {
    this.calls.push(`disk ${limit}`);
    await this.#stuck(signal);
    if (this.failure.set) throw this.failure.set;
    this.diskLimit = limit;
  }
}

class FakeHotSpots implements LocalHotSpots {
  readonly links = new Map<string, LinkLoad>();
  /** Interfaces by host. */
  readonly towards = new Map<string, string>();
  readonly #listeners = new Set<(load: LinkLoad) => void>();

  set(link: string, change: Partial<LinkLoad>): void {
    const none = { link, at: millis(0), saturated: false, hot: false, source: 'test' };
    const load = { ...none, ...change };
    this.links.set(link, load);
    for (const listener of this.#listeners) listener(load);
  }

  loads(): readonly LinkLoad[] {
    return [...this.links.values()];
  }

  watch(listener: (load: LinkLoad) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  linkTowards(host: string): string | undefined {
    return this.towards.get(host);
  }
}

/** What was asked of other daemons; each answers as scripted, by migration. */
class FakePeers implements Peers {
  readonly asked: { readonly server: string; readonly request: BackOffRequest }[] = [];
  readonly answers = new Map<string, BackOffAnswer | Error | 'never'>();
  /** Calls under way, and the most at the same time. */
  open = 0;
  most = 0;

  async backOff({ server }: Sharer, request: BackOffRequest, signal: AbortSignal): Promise<BackOffAnswer> {
    this.asked.push({ server, request });
    this.most = Math.max(this.most, ++this.open);
    try {
      const answer = this.answers.get(request.migrationId) ?? 'obeyed';
      if (answer instanceof Error) throw answer;
      if (answer !== 'never') return await Promise.resolve(answer);
      return await new Promise((_, reject) => {
        signal.addEventListener('abort', () => reject(new MigrateFsError('CANCELLED', 'given up')), {
          once: true,
        });
      });
    } finally {
      this.open--;
    }
  }
}

interface Line {
  readonly level: string;
  readonly message: string;
  readonly fields: object | undefined;
}

export class BrokerWorld {
  readonly clock = new ManualClock(1_800_000_000_000);
  readonly hotSpots = new FakeHotSpots();
  readonly peers = new FakePeers();
  readonly migrations = new Map<string, FakeMigration>();
  readonly lines: Line[] = [];
  readonly host: BrokerHost;
  /** In place of the policy. */
  decide: Decide = decide;

  constructor({ hostLimit = UNLIMITED }: { readonly hostLimit?: BytesPerSecond } = {}) {
    this.host = new BrokerHost({
      ownAddress: () => OWN_ADDRESS,
      hostLimit,
      hotSpots: this.hotSpots,
      peers: this.peers,
      pointsOf: (id) => this.migrations.get(id)!,
      decide: (...args) => this.decide(...args),
      clock: this.clock,
      log: (level, message, fields) => void this.lines.push({ level, message, fields }),
    });
  }

  /** A migration with a broker that decides every second. */
  begin(
    id: string,
    change: { choice?: BrokerChoice; target?: string; deadlineIn?: number } = {},
  ): FakeMigration {
    const { choice = {}, target = 'host-b', deadlineIn } = change;
    const migration = new FakeMigration(this.clock);
    this.migrations.set(id, migration);
    this.host.begin({
      id,
      target,
      deadline: deadlineIn === undefined ? undefined : millis(this.clock.wall() + deadlineIn),
      choice: choice === 'off' ? 'off' : { period: millis(1_000), vmmTime: millis(0), ...choice },
    });
    return migration;
  }

  /** Decisions pass. */
  periods(count: number): Promise<void> {
    return this.clock.advance(count * 1_000);
  }

  /** A request as another broker makes it each second. */
  ask(migrationId: string, change: Partial<BackOffRequest> = {}): Promise<BackOffAnswer> {
    return this.host.backOff({
      migrationId,
      from: 'other',
      link: 'tor3',
      validFor: millis(1_500),
      ratio: 1.5,
      ...change,
    });
  }

  messages(level: string): readonly string[] {
    return this.lines.filter((line) => line.level === level).map(({ message }) => message);
  }
}
