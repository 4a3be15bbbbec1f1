/** Two daemons on one machine, and migrations between them as a client of the network API sees them. */
import { join } from 'node:path';
import { type ControlClient, connect } from '../../src/control/control-client.js';
import type { BrokerChoice } from '../../src/leaves/broker.js';
import { parseHostPort } from '../../src/leaves/host-port.js';
import {
  type CutoverPolicy,
  isFinal,
  type MigrationSnapshot,
  type MigrationState,
} from '../../src/leaves/migration.js';
import { bytesPerSecond, millis, UNLIMITED } from '../../src/leaves/units.js';
import { scratchDir, type Teardown } from './scratch.js';
import { TestDaemon, type TestDaemonOptions, within } from './test-daemon.js';

const WAIT_MAX_MS = 60_000;

/** One daemon and a connection to its control API. */
export interface Host {
  readonly daemon: TestDaemon;
  readonly client: ControlClient;
}

export const startHost = async (t: Teardown, options: TestDaemonOptions = {}): Promise<Host> => {
  const daemon = await TestDaemon.start(t, options);
  const client = connect({ server: parseHostPort(daemon.controlAddress) });
  t.teardown(() => client.close());
  return { daemon, client };
};

/** The same folders and ports again, after the daemon has ended. */
export const restartHost = (t: Teardown, { daemon }: Host, options: TestDaemonOptions = {}): Promise<Host> =>
  startHost(t, {
    imageDir: daemon.imageDir,
    mountpoint: daemon.mountpoint,
    transport: daemon.transport,
    listen: daemon.controlAddress,
    data: daemon.dataAddress,
    ...options,
  });

export interface Pair {
  readonly source: Host;
  readonly target: Host;
}

export const startPair = async (
  t: Teardown,
  options: { readonly source?: TestDaemonOptions; readonly target?: TestDaemonOptions } = {},
): Promise<Pair> => {
  const folder = scratchDir(t, 'pair');
  const [source, target] = await Promise.all(
    (['source', 'target'] as const).map((side) =>
      startHost(t, {
        imageDir: join(folder, side, 'images'),
        mountpoint: join(folder, side, 'mount'),
        ...options[side],
      }),
    ),
  );
  return { source: source!, target: target! };
};

export interface StartSettings {
  readonly cutover?: CutoverPolicy;
  /** Bytes per second; absent: none. */
  readonly netLimit?: number;
  readonly diskLimit?: number;
  /** Milliseconds since the epoch. */
  readonly deadline?: number;
  /** Milliseconds from now. */
  readonly deadlineAfter?: number;
  /** Absent: one with every default. */
  readonly broker?: BrokerChoice;
  /** Data address to use instead of the target's own, a proxy's for instance. */
  readonly to?: string;
}

/** A migration under observation: every state it has been in, and the last report. */
export class Followed {
  readonly id: string;
  readonly #states: MigrationState[] = [];
  readonly #waiters = new Set<() => void>();
  readonly #stop = new AbortController();
  #last: MigrationSnapshot;
  #ended: Error | null = null;

  constructor(t: Teardown, client: ControlClient, first: MigrationSnapshot) {
    this.id = first.id;
    this.#last = first;
    this.#states.push(first.state);
    t.teardown(() => this.#stop.abort());
    void this.#watch(client);
  }

  /** The states in order, without repetition of the same one. */
  get states(): readonly MigrationState[] {
    return this.#states;
  }

  get last(): MigrationSnapshot {
    return this.#last;
  }

  /** Resolves with the first report that is `wanted`; rejects when it ends otherwise or takes too long. */
  async until(
    wanted: (snapshot: MigrationSnapshot) => boolean,
    milliseconds = WAIT_MAX_MS,
  ): Promise<MigrationSnapshot> {
    const seen = new Promise<MigrationSnapshot>((resolve, reject) => {
      const look = (): void => {
        if (wanted(this.#last)) resolve(this.#last);
        else if (this.#ended) reject(this.#ended);
        else return;
        this.#waiters.delete(look);
      };
      this.#waiters.add(look);
      look();
    });
    return within(
      seen,
      milliseconds,
      () => `migration ${this.id} went ${this.#states.join(' > ')}, last: ${JSON.stringify(this.#last)}`,
    );
  }

  reaches(state: MigrationState, milliseconds = WAIT_MAX_MS): Promise<MigrationSnapshot> {
    return this.until((snapshot) => snapshot.state === state, milliseconds);
  }

  async #watch(client: ControlClient): Promise<void> {
    try {
      for await (const snapshot of client.watch(this.id, this.#stop.signal)) {
        this.#last = snapshot;
        if (this.#states.at(-1) !== snapshot.state) this.#states.push(snapshot.state);
        if (isFinal(snapshot.state))
          this.#ended = new Error(`ended ${snapshot.state}: ${snapshot.error?.message ?? 'no error given'}`);
        for (const look of this.#waiters) look();
      }
      this.#ended ??= new Error('the watch stream ended');
    } catch (error) {
      this.#ended ??= error as Error;
    }
    for (const look of this.#waiters) look();
  }
}

/** Starts a migration at the pair's source and follows it. Rejects with the daemon's refusal. */
export const migrate = async (
  t: Teardown,
  pair: Pair,
  images: readonly string[],
  settings: StartSettings = {},
): Promise<Followed> => {
  const { cutover = 'on-first-write', netLimit, diskLimit, deadline, deadlineAfter, broker, to } = settings;
  const first = await pair.source.client.start({
    images,
    target: to ?? pair.target.daemon.dataAddress,
    cutover,
    netLimit: netLimit === undefined ? UNLIMITED : bytesPerSecond(netLimit),
    diskLimit: diskLimit === undefined ? UNLIMITED : bytesPerSecond(diskLimit),
    priority: 5,
    ...(deadline === undefined ? {} : { deadline: millis(deadline) }),
    ...(deadlineAfter === undefined ? {} : { deadlineAfter: millis(deadlineAfter) }),
    ...(broker === undefined ? {} : { broker }),
  });
  return new Followed(t, pair.source.client, first);
};
