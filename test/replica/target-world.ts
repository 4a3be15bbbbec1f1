/** A receiving side over real files and a real socket, and a source that says what the test wants. */
import { closeSync, constants, existsSync, mkdirSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createBackingCalls } from '../../src/fs/backing-calls.js';
import type { ImageRecord } from '../../src/fs/image-record.js';
import { readRecord, writeRecord } from '../../src/fs/image-record.js';
import { ImageRegistry } from '../../src/fs/image-registry.js';
import type { ImageStore } from '../../src/fs/image-store.js';
import { ImageStoreService } from '../../src/fs/image-store-service.js';
import { GraceCounters, ImageTable } from '../../src/fs/image-table.js';
import type { RoutedRequest } from '../../src/fs/participant.js';
import type { Clock } from '../../src/leaves/clock.js';
import { systemClock } from '../../src/leaves/clock.js';
import { parseHostPort } from '../../src/leaves/host-port.js';
import type { MigrationSnapshot } from '../../src/leaves/migration.js';
import type { Remote } from '../../src/leaves/port-rpc.js';
import type { TargetContext } from '../../src/replica/target/target-context.js';
import { TargetMigrations } from '../../src/replica/target/target-migrations.js';
import type { Frame, FrameProperties } from '../../src/replica/wire/frame.js';
import { PROTOCOL_VERSION } from '../../src/replica/wire/frame.js';
import type { migratefs } from '../../src/replica/wire/generated/data.js';
import { PeerConnection } from '../../src/replica/wire/peer-connection.js';
import { PeerListener } from '../../src/replica/wire/peer-listener.js';
import type { Teardown } from '../support/scratch.js';
import { scratchDir } from '../support/scratch.js';

type FrameOf<K extends Frame['body']> = Extract<Frame, { body: K }>;
type Hello = migratefs.data.Hello.$Properties;

export const ID = 'm-1';
export const IMAGE = { name: 'disk.img', size: 1024 * 1024, allocated: 0, mode: 0o640, generation: 4 };

const remoteStore = (store: ImageStore): Remote<ImageStore> => ({
  pin: async (name) => store.pin(name),
  createReplica: async (name, attributes) => store.createReplica(name, attributes),
  release: async (slot, remove) => store.release(slot, remove),
  invalidate: async (slot) => store.invalidate(slot),
  freeSpace: async (names) => store.freeSpace(names),
  describe: async (names) => store.describe(names),
});

/** The source's end: keeps what arrives until the test asks for it. */
class FakeSource {
  readonly connection: PeerConnection;
  readonly #frames: Frame[] = [];
  readonly #acked = new Map<number, string>();
  readonly #failures: migratefs.data.Failure.$Properties[] = [];
  #wake: () => void = () => {};
  #seq = 0;

  constructor(connection: PeerConnection) {
    this.connection = connection;
    connection.onFrame((frame) => {
      if (frame.body === 'ack') {
        for (const seq of frame.ack.seqs) this.#acked.set(seq, frame.ack.failure?.code ?? 'ok');
        if (frame.ack.failure) this.#failures.push(frame.ack.failure);
      } else this.#frames.push(frame);
      this.#wake();
    });
    void connection.closed.then(() => this.#wake());
  }

  /** The next frame of that kind, frames of other kinds before it dropped; rejects when the connection closes first. */
  async next<K extends Frame['body']>(body: K): Promise<FrameOf<K>> {
    for (;;) {
      for (let frame = this.#frames.shift(); frame; frame = this.#frames.shift())
        if (frame.body === body) return frame as FrameOf<K>;
      await this.#changed(`a ${body} frame`);
    }
  }

  /** Resolves with `ok` or the failure's code. */
  async outcome(seq: number): Promise<string> {
    for (;;) {
      const outcome = this.#acked.get(seq);
      if (outcome !== undefined) return outcome;
      await this.#changed(`ack ${seq}`);
    }
  }

  /** The next failure of a change. */
  async failure(): Promise<migratefs.data.Failure.$Properties> {
    for (;;) {
      const failure = this.#failures.shift();
      if (failure) return failure;
      await this.#changed('a failure');
    }
  }

  isAcked(seq: number): boolean {
    return this.#acked.has(seq);
  }

  send(frame: FrameProperties, payload?: Uint8Array): number {
    const seq = ++this.#seq;
    this.connection.send({ seq, ...frame }, payload ? [payload] : []);
    return seq;
  }

  /** Sends and waits for the answer to the frame. */
  do(frame: FrameProperties, payload?: Uint8Array): Promise<string> {
    return this.outcome(this.send(frame, payload));
  }

  async hello(fields: Hello = {}): Promise<migratefs.data.HelloReply> {
    this.connection.send({
      hello: {
        protocolVersion: PROTOCOL_VERSION,
        migrationId: ID,
        sourceInstance: 'source-1',
        sourceHost: 'host-a',
        sourceAddress: '10.0.0.1:7071',
        cutover: 'on-first-write',
        blockSize: 65536,
        images: [IMAGE],
        ...fields,
      },
    });
    return (await this.next('helloReply')).helloReply;
  }

  /** Goes through the phases up to in sync. */
  inSync(): void {
    for (const state of ['dirty-resend', 'mirroring']) this.connection.send({ phase: { state } });
  }

  async #changed(what: string): Promise<void> {
    const closed = this.connection.isClosed;
    if (closed)
      throw new Error(`connection closed before ${what}: ${(await this.connection.closed).message}`);
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
    });
  }
}

interface WorldOptions {
  /** Backing directory; a scratch directory when absent. */
  readonly dir?: string;
  readonly clock?: Clock;
  readonly store?: (store: Remote<ImageStore>) => Remote<ImageStore>;
  readonly context?: Partial<TargetContext>;
}

/** One run of a target daemon's receiving side. */
export class TargetWorld {
  readonly dir: string;
  readonly table = new ImageTable();
  readonly grace = new GraceCounters();
  readonly calls = createBackingCalls();
  readonly snapshots: MigrationSnapshot[] = [];
  readonly log: { level: string; message: string; fields?: object }[] = [];
  readonly invalidated: number[] = [];
  readonly targets: TargetMigrations;
  readonly #root: number;
  readonly #store: ImageStoreService;
  readonly #sources: FakeSource[] = [];
  #listener: PeerListener | undefined;
  #stopped = false;

  private constructor(dir: string, options: WorldOptions) {
    this.dir = dir;
    this.#root = openSync(dir, constants.O_RDONLY | constants.O_DIRECTORY);
    const registry = new ImageRegistry(this.table, () => {});
    this.#store = new ImageStoreService(this.#root, this.table, registry, (slot) =>
      this.invalidated.push(slot),
    );
    const remote = remoteStore(this.#store);
    this.targets = new TargetMigrations({
      store: options.store?.(remote) ?? remote,
      table: this.table,
      grace: this.grace,
      calls: this.calls,
      clock: options.clock ?? systemClock,
      writeRecord,
      turn: () => new Promise((resolve) => setImmediate(resolve)),
      log: (level, message, fields) => this.log.push({ level, message, ...(fields ? { fields } : {}) }),
      changed: (snapshot) => this.snapshots.push(snapshot),
      instance: 'target-1',
      host: 'host-b',
      ...options.context,
    });
  }

  static async start(t: Teardown, options: WorldOptions = {}): Promise<TargetWorld> {
    const world = new TargetWorld(options.dir ?? scratchDir(t, 'B-target'), options);
    world.#listener = await PeerListener.listen({
      host: '127.0.0.1',
      port: 0,
      clock: systemClock,
      onHello: (connection, hello) => void world.targets.accept(connection, hello),
      log: (level, message, fields) => world.log.push({ level, message, ...(fields ? { fields } : {}) }),
    });
    t.teardown(() => world.stop());
    return world;
  }

  /** As a daemon that is told to stop. */
  async stop(): Promise<void> {
    if (this.#stopped) return;
    this.#stopped = true;
    for (const { connection } of this.#sources) connection.destroy();
    await this.targets.close();
    await this.#listener?.close();
    this.#store.close();
    closeSync(this.#root);
  }

  async source(): Promise<FakeSource> {
    const { host, port } = parseHostPort(this.#listener!.address);
    const source = new FakeSource(await PeerConnection.connect({ host, port, clock: systemClock }));
    this.#sources.push(source);
    return source;
  }

  /** A source whose migration has been accepted and has begun. */
  async started(fields: Hello = {}): Promise<FakeSource> {
    const source = await this.source();
    const reply = await source.hello(fields);
    if (reply.failure) throw new Error(`${reply.failure.code}: ${reply.failure.message}`);
    source.connection.send({ phase: { state: 'bulk-copy' } });
    return source;
  }

  /** Resolves when the migration has that state. */
  async state(state: string, id = ID): Promise<void> {
    while (this.targets.get(id)?.state !== state) await new Promise((resolve) => setImmediate(resolve));
  }

  path(name = IMAGE.name): string {
    return join(this.dir, name);
  }

  content(name?: string): Buffer {
    return readFileSync(this.path(name));
  }

  exists(name?: string): boolean {
    return existsSync(this.path(name));
  }

  record(name?: string): ImageRecord | null {
    const fd = openSync(this.path(name), 'r');
    try {
      return readRecord(fd);
    } finally {
      closeSync(fd);
    }
  }

  /** As a participant that got a request for the first replica through a handle of its own. */
  guest(request: GuestChange, index = 0, id = ID): Promise<number> {
    const migration = this.targets.get(id)!;
    const image = migration.images[index]!;
    const fd = openSync(this.path(image.name), 'r+');
    return new Promise<number>((resolve) => {
      image.routed(
        { ...request, slot: image.slot, fd, reply: { kind: 'port', id: 1 } } as RoutedRequest,
        resolve,
      );
    }).finally(() => closeSync(fd));
  }

  mode(index = 0): number {
    return this.table.mode(this.targets.get(ID)!.images[index]!.slot);
  }
}

type Without<T> = T extends RoutedRequest ? Omit<T, 'slot' | 'fd' | 'reply'> : never;
export type GuestChange = Without<RoutedRequest>;

export const folder = (parent: string, name: string): string => {
  const path = join(parent, name);
  mkdirSync(path, { recursive: true });
  return path;
};
