import type { HostControl, MigrationOrder } from '../../src/broker/scheduler/host-control.js';
import type {
  HypervisorDriver,
  MoveJob,
  MoveProgress,
} from '../../src/broker/scheduler/hypervisor-driver.js';
import type { BrokerSnapshot, PathLink } from '../../src/leaves/broker.js';
import type { ErrorCode } from '../../src/leaves/errors.js';
import { MigrateFsError } from '../../src/leaves/errors.js';
import type { ImageDescription, MigrationSnapshot } from '../../src/leaves/migration.js';
import { isFinal, MIGRATION_EDGES } from '../../src/leaves/migration.js';
import { bytes, generation, millis } from '../../src/leaves/units.js';
import { snapshotExample } from './fake-migration-control.js';

type Method = 'describe' | 'start' | 'list' | 'watch' | 'cancel' | 'cutover' | 'setPath' | 'broker';

interface FakeMigration {
  snapshot: MigrationSnapshot;
  readonly source: string;
  readonly target: string;
  readonly names: readonly string[];
}

const IMAGE_BYTES = bytes(10_000_000);

/** Daemons of several hosts, with a script in place of disks. Migrations stay where they are until a test moves them on. */
export class FakeHosts implements HostControl {
  readonly migrations: FakeMigration[] = [];
  /** Every start that reached a daemon, whether it was answered or not. */
  readonly starts: MigrationOrder[] = [];
  readonly cutovers: string[] = [];
  readonly paths = new Map<string, readonly PathLink[]>();
  readonly brokers = new Map<string, BrokerSnapshot>();
  readonly #images = new Map<string, ImageDescription>();
  readonly #faults = new Map<string, { error: MigrateFsError; times: number; after: boolean }>();
  readonly #watchers = new Set<() => void>();
  #down = new Set<string>();
  #next = 1;

  put(host: string, name: string, image: Partial<Extract<ImageDescription, { role: string }>> = {}): void {
    this.#images.set(`${host}/${name}`, {
      name,
      size: IMAGE_BYTES,
      allocated: IMAGE_BYTES,
      role: 'owner',
      generation: generation(0),
      ...image,
    });
  }

  remove(host: string, name: string): void {
    this.#images.delete(`${host}/${name}`);
  }

  /** The next `times` calls fail; with `after` what they ask for is done all the same. */
  fail(host: string, method: Method, code: ErrorCode, times = 1, after = false): void {
    const error = new MigrateFsError(code, `${host}: ${method} fails as told`);
    this.#faults.set(`${host} ${method}`, { error, times, after });
  }

  /** Nobody answers there, and streams break. */
  unreachable(host: string, down: boolean): void {
    if (down) this.#down.add(host);
    else this.#down.delete(host);
    this.#wake();
  }

  /** The daemon there has been started again: it knows nothing of its migrations. */
  forget(host: string): void {
    for (let at = this.migrations.length - 1; at >= 0; at--)
      if (this.migrations[at]!.source === host) this.migrations.splice(at, 1);
    this.#wake();
  }

  find(id: string): FakeMigration {
    const found = this.migrations.find(({ snapshot }) => snapshot.id === id);
    if (!found) throw new MigrateFsError('NOT_FOUND', `no migration ${id}`);
    return found;
  }

  /** The newest one of an image. */
  of(image: string): FakeMigration {
    return this.migrations.findLast(({ names }) => names.includes(image))!;
  }

  /** Moves a migration on, step by step where the edges need it. */
  set(id: string, state: MigrationSnapshot['state'], change: Partial<MigrationSnapshot> = {}): void {
    const migration = this.find(id);
    if (isFinal(migration.snapshot.state)) throw new Error(`migration ${id} has ended`);
    if (
      !MIGRATION_EDGES[migration.snapshot.state].includes(state) &&
      state !== 'mirroring' &&
      state !== 'completed'
    )
      throw new Error(`no edge from ${migration.snapshot.state} to ${state}`);
    migration.snapshot = { ...migration.snapshot, state, ...change };
    if (state === 'completed') {
      for (const name of migration.names) {
        this.put(migration.source, name, {
          role: 'fenced',
          peer: migration.target,
          generation: generation(1),
        });
        this.put(migration.target, name, { generation: generation(1) });
      }
    }
    this.#wake();
  }

  controlAddress(host: string): string {
    return `${host}:7070`;
  }

  async describe(host: string, images: readonly string[]): Promise<readonly ImageDescription[]> {
    this.#check(host, 'describe');
    return images.map(
      (name) =>
        this.#images.get(`${host}/${name}`) ?? {
          name,
          error: { code: 'NOT_FOUND', message: `no image ${name}` },
        },
    );
  }

  async start(host: string, order: MigrationOrder, _signal: AbortSignal): Promise<MigrationSnapshot> {
    const late = this.#check(host, 'start');
    this.starts.push(order);
    const known = this.migrations.find(({ snapshot }) => snapshot.requestId === order.requestId);
    if (known && late) throw late;
    if (known) return known.snapshot;
    const busy = this.migrations.find(
      ({ snapshot, names }) => !isFinal(snapshot.state) && names.some((name) => order.images.includes(name)),
    );
    if (busy)
      throw new MigrateFsError('FAILED_PRECONDITION', `already migrating: migration ${busy.snapshot.id}`);
    const { load: _load, deadline: _deadline, ...example } = snapshotExample;
    const snapshot: MigrationSnapshot = {
      ...example,
      id: `m${this.#next++}`,
      requestId: order.requestId,
      cutover: order.cutover,
      bytesTotal: IMAGE_BYTES,
      bytesLeft: IMAGE_BYTES,
      eta: millis(1000),
    };
    this.migrations.push({ snapshot, source: host, target: order.target, names: order.images });
    if (late) throw late;
    return snapshot;
  }

  async list(host: string): Promise<readonly MigrationSnapshot[]> {
    this.#check(host, 'list');
    return this.migrations.filter(({ source }) => source === host).map(({ snapshot }) => snapshot);
  }

  async *watch(host: string, id: string, signal: AbortSignal): AsyncGenerator<MigrationSnapshot, void, void> {
    let shown: MigrationSnapshot | undefined;
    for (;;) {
      this.#check(host, 'watch');
      const { snapshot } = this.find(id);
      if (snapshot !== shown) {
        shown = snapshot;
        yield snapshot;
        if (isFinal(snapshot.state)) return;
        continue;
      }
      // Not before: what has arrived is still read.
      if (signal.aborted) return;
      await new Promise<void>((resolve) => {
        const done = (): void => {
          this.#watchers.delete(done);
          signal.removeEventListener('abort', done);
          resolve();
        };
        this.#watchers.add(done);
        signal.addEventListener('abort', done, { once: true });
      });
    }
  }

  async cancel(host: string, id: string): Promise<MigrationSnapshot> {
    const late = this.#check(host, 'cancel');
    const { snapshot } = this.find(id);
    if (snapshot.state === 'completed' || snapshot.state === 'failed')
      throw new MigrateFsError('FAILED_PRECONDITION', `migration ${id} is ${snapshot.state}`);
    if (snapshot.state !== 'cancelled') this.set(id, 'cancelled');
    if (late) throw late;
    return this.find(id).snapshot;
  }

  async cutover(host: string, id: string): Promise<MigrationSnapshot> {
    const late = this.#check(host, 'cutover');
    this.cutovers.push(id);
    if (this.find(id).snapshot.state !== 'mirroring')
      throw new MigrateFsError('FAILED_PRECONDITION', `migration ${id} is not in sync`);
    this.set(id, 'completed');
    if (late) throw late;
    return this.find(id).snapshot;
  }

  async setPath(host: string, id: string, path: readonly PathLink[]): Promise<void> {
    this.#check(host, 'setPath');
    this.find(id);
    this.paths.set(id, path);
  }

  async broker(host: string, id: string, _signal?: AbortSignal): Promise<BrokerSnapshot> {
    this.#check(host, 'broker');
    const broker = this.brokers.get(id);
    if (!broker) throw new MigrateFsError('NOT_FOUND', `no broker of ${id}`);
    return broker;
  }

  /** Throws what the call is to fail with before it; returns what it is to fail with after it. */
  #check(host: string, method: Method): MigrateFsError | undefined {
    if (this.#down.has(host)) throw new MigrateFsError('UNAVAILABLE', `cannot reach ${host}`);
    const fault = this.#faults.get(`${host} ${method}`);
    if (!fault) return undefined;
    if (--fault.times <= 0) this.#faults.delete(`${host} ${method}`);
    if (fault.after) return fault.error;
    throw fault.error;
  }

  #wake(): void {
    for (const watcher of [...this.#watchers]) watcher();
  }
}

interface FakeMove {
  state: 'running' | 'moved' | 'failed' | 'stopped';
  readonly job: MoveJob;
  readonly waiters: Set<() => void>;
}

/** A driver whose moves end when a test says so. It outlives schedulers, as commands do. */
export class FakeDriver implements HypervisorDriver {
  readonly moves = new Map<string, FakeMove>();
  /** Moves that were really begun. */
  begun = 0;
  rollbacks = 0;
  rollbackError: MigrateFsError | undefined;
  /** Moves succeed in the moment in which they are to be ended. */
  succeedsAtStop = false;
  /** Whether a move has succeeded cannot be known. */
  stopError: MigrateFsError | undefined;
  readonly forgotten: string[] = [];
  /** Of the newest move. */
  report: (progress: MoveProgress) => void = () => {};

  end(task: string, state: 'moved' | 'failed'): void {
    const move = [...this.moves.values()].findLast(({ job }) => job.task === task)!;
    move.state = state;
    for (const waiter of move.waiters) waiter();
  }

  async move(
    job: MoveJob,
    signal: AbortSignal,
    report: (progress: MoveProgress) => void = () => {},
  ): Promise<void> {
    this.report = report;
    const key = `${job.task} ${job.attempt}`;
    let move = this.moves.get(key);
    if (!move) {
      this.begun++;
      move = { state: 'running', job, waiters: new Set() };
      this.moves.set(key, move);
    }
    while (move.state === 'running') {
      signal.throwIfAborted();
      const { waiters } = move;
      await new Promise<void>((resolve) => {
        const done = (): void => {
          waiters.delete(done);
          resolve();
        };
        waiters.add(done);
        signal.addEventListener('abort', done, { once: true });
      });
    }
    if (move.state !== 'moved') throw new MigrateFsError('ABORTED', 'the driver ended with status 3');
  }

  async stop(job: MoveJob): Promise<'moved' | 'not-moved'> {
    if (this.stopError) throw this.stopError;
    const move = this.moves.get(`${job.task} ${job.attempt}`);
    if (move?.state === 'running') {
      move.state = this.succeedsAtStop ? 'moved' : 'stopped';
      for (const waiter of move.waiters) waiter();
    }
    return move?.state === 'moved' ? 'moved' : 'not-moved';
  }

  async rollBack(_job: MoveJob): Promise<void> {
    this.rollbacks++;
    if (this.rollbackError) throw this.rollbackError;
  }

  forget(task: string): void {
    this.forgotten.push(task);
  }
}
