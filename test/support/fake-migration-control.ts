import { MigrateFsError } from '../../src/leaves/errors.js';
import type {
  ImageDescription,
  LimitChange,
  LimitSetter,
  MigrationControl,
  MigrationRequest,
  MigrationSnapshot,
  VerifyReport,
} from '../../src/leaves/migration.js';
import { isFinal } from '../../src/leaves/migration.js';
import { bytes, GiB, generation, MiB, millis, UNLIMITED } from '../../src/leaves/units.js';

export const snapshotExample: MigrationSnapshot = {
  id: 'm1',
  role: 'source',
  state: 'bulk-copy',
  peer: '127.0.0.1:7171',
  images: [
    {
      name: 'vm/disk.raw',
      size: bytes(10 * GiB),
      allocated: bytes(GiB),
      left: bytes(512 * MiB),
      dirty: bytes(64 * MiB),
      generation: generation(3),
    },
  ],
  cutover: 'on-first-write',
  priority: 4,
  deadline: millis(1_900_000_000_000),
  startedAt: millis(1_800_000_000_000),
  bytesTotal: bytes(GiB),
  bytesLeft: bytes(512 * MiB),
  bytesSent: bytes(600 * MiB),
  bytesResent: bytes(88 * MiB),
  bytesMirrored: bytes(MiB),
  netRate: 118_250_000,
  writeRate: 30_000_000,
  dirtyRate: 12_500_000,
  netLimit: UNLIMITED,
  diskLimit: UNLIMITED,
  eta: millis(5000),
  etaLow: millis(4000),
  etaHigh: millis(7000),
  load: {
    left: bytes(512 * MiB),
    allocated: bytes(GiB),
    netRate: 118_250_000,
    dirtyRate: 12_500_000,
    writeRate: 30_000_000,
    netDeviation: 2_000_000,
    dirtyDeviation: 500_000,
    converging: false,
  },
};

/** The port that the control API drives, with a script in place of a replica thread. */
export class FakeMigrationControl implements MigrationControl {
  readonly migrations = new Map<string, MigrationSnapshot>();
  readonly calls: unknown[] = [];
  readonly #listeners = new Set<(snapshot: MigrationSnapshot) => void>();
  /** Thrown by the next call instead of doing it. */
  failure: Error | undefined;
  reports: readonly VerifyReport[] = [];
  descriptions: readonly ImageDescription[] = [];
  onStart: (snapshot: MigrationSnapshot) => void = () => {};
  onCancel: (id: string) => void = (id) => void this.change(id, { state: 'cancelled' });

  get watchers(): number {
    return this.#listeners.size;
  }

  put(snapshot: MigrationSnapshot): MigrationSnapshot {
    this.migrations.set(snapshot.id, snapshot);
    for (const listener of this.#listeners) listener(snapshot);
    return snapshot;
  }

  change(id: string, change: Partial<MigrationSnapshot>): MigrationSnapshot {
    const before = this.migrations.get(id);
    if (!before) throw new MigrateFsError('NOT_FOUND', `no migration ${id}`);
    return this.put({ ...before, ...change });
  }

  async #enter(call: unknown, id?: string): Promise<MigrationSnapshot> {
    this.calls.push(call);
    const failure = this.failure;
    this.failure = undefined;
    if (failure) throw failure;
    if (id === undefined) return snapshotExample;
    const found = this.migrations.get(id);
    if (!found) throw new MigrateFsError('NOT_FOUND', `no migration ${id}`);
    return found;
  }

  async start(request: MigrationRequest): Promise<MigrationSnapshot> {
    await this.#enter(['start', request]);
    const { deadline: _none, eta: _unknown, etaLow: _low, etaHigh: _high, ...example } = snapshotExample;
    const snapshot = this.put({
      ...example,
      id: `m${this.migrations.size + 1}`,
      state: 'preparing',
      peer: request.target,
      images: request.images.map((name) => ({ ...snapshotExample.images[0]!, name })),
      cutover: request.cutover,
      netLimit: request.netLimit,
      diskLimit: request.diskLimit,
      priority: request.priority,
      ...(request.deadline !== undefined && { deadline: request.deadline }),
    });
    this.onStart(snapshot);
    return snapshot;
  }

  async get(id: string): Promise<MigrationSnapshot> {
    return this.#enter(['get', id], id);
  }

  async list(): Promise<readonly MigrationSnapshot[]> {
    await this.#enter(['list']);
    return [...this.migrations.values()];
  }

  async setLimits(id: string, change: LimitChange, by?: LimitSetter): Promise<MigrationSnapshot> {
    await this.#enter(['setLimits', id, change, ...(by ? [by] : [])], id);
    return this.change(id, change);
  }

  async pause(id: string): Promise<MigrationSnapshot> {
    await this.#enter(['pause', id], id);
    return this.change(id, { state: 'paused' });
  }

  async resume(id: string): Promise<MigrationSnapshot> {
    await this.#enter(['resume', id], id);
    return this.change(id, { state: 'bulk-copy' });
  }

  async cancel(id: string, takeBack = false): Promise<MigrationSnapshot> {
    const { state } = await this.#enter(takeBack ? ['cancel', id, 'take back'] : ['cancel', id], id);
    if (isFinal(state) && state !== 'cancelled')
      throw new MigrateFsError('FAILED_PRECONDITION', `migration ${id} is ${state}`);
    this.onCancel(id);
    return this.migrations.get(id)!;
  }

  async cutover(id: string): Promise<MigrationSnapshot> {
    const { state } = await this.#enter(['cutover', id], id);
    if (state !== 'mirroring')
      throw new MigrateFsError('FAILED_PRECONDITION', `migration ${id} is ${state}, not in sync`);
    return this.change(id, { state: 'completed', cutoverStall: millis(12.5) });
  }

  async describeImages(names: readonly string[]): Promise<readonly ImageDescription[]> {
    await this.#enter(['describeImages', names]);
    return names.map(
      (name) =>
        this.descriptions.find((image) => image.name === name) ?? {
          name,
          error: { code: 'NOT_FOUND', message: `no image ${name}` },
        },
    );
  }

  async verify(what: string): Promise<readonly VerifyReport[]> {
    await this.#enter(['verify', what]);
    return this.reports;
  }

  watch(listener: (snapshot: MigrationSnapshot) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
}
