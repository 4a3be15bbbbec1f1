import Bottleneck from 'bottleneck';
import type { BackingCalls } from '../fs/backing-calls.js';
import { writeRecord } from '../fs/image-record.js';
import type { ImageStore } from '../fs/image-store.js';
import type { ImageSlot } from '../fs/image-table.js';
import { GraceCounters, ImageTable } from '../fs/image-table.js';
import type { BitmapAnnouncement, FileSystemEnds } from '../fs/participant.js';
import type { Clock } from '../leaves/clock.js';
import { MigrateFsError, plainError } from '../leaves/errors.js';
import type { HostPort } from '../leaves/host-port.js';
import { formatHostPort, parseHostPort } from '../leaves/host-port.js';
import type {
  ImageDescription,
  LimitChange,
  LimitSetter,
  MigrationControl,
  MigrationRequest,
  MigrationSnapshot,
  VerifyReport,
} from '../leaves/migration.js';
import { isFinal } from '../leaves/migration.js';
import { remotePort } from '../leaves/port-rpc.js';
import type { TlsIdentity } from '../leaves/tls-identity.js';
import { TokenBucket } from '../leaves/token-bucket.js';
import type { Bytes, BytesPerSecond, Millis } from '../leaves/units.js';
import { generation } from '../leaves/units.js';
import { RequestIds } from './request-ids.js';
import type { FindHandler } from './routed-requests.js';
import { RoutedRequests, wakeParticipant } from './routed-requests.js';
import { BufferPool } from './source/buffer-pool.js';
import type { Log, SourceEnvironment } from './source/environment.js';
import type { SourceImage } from './source/source-image.js';
import type { SourceMigration } from './source/source-migration.js';
import { startMigration } from './source/start-migration.js';
import { StreamLink } from './source/stream-link.js';
import { TargetMigrations } from './target/target-migrations.js';
import { openStream } from './wire/open-stream.js';
import { PeerConnection } from './wire/peer-connection.js';
import { PeerListener } from './wire/peer-listener.js';

/** Copy batches of all migrations being read at once; more would only fight for the disk and the pool of threads. */
const COPY_BATCHES_MAX = 4;
/** Streams of all migrations of this host as a source: each has a thread. */
const STREAMS_MAX = 16;
/** Ended migrations that are still listed. */
const HISTORY_MAX = 1000;
const WILDCARDS: readonly string[] = ['0.0.0.0', '::'];

export interface ReplicaHostOptions {
  readonly ends: FileSystemEnds;
  /** Where peers connect to. */
  readonly data: HostPort;
  readonly blockSize?: Bytes | undefined;
  /** Of all migrations of this host together. */
  readonly netLimit: BytesPerSecond;
  readonly tls?: TlsIdentity | undefined;
  readonly peerTimeout?: Millis | undefined;
  readonly calls: BackingCalls;
  readonly clock: Clock;
  readonly random: () => number;
  /** A new id for a migration or an instance. */
  readonly newId: () => string;
  /** What proves that a stream belongs to a connection; absent: no stream is taken. */
  readonly newToken?: () => Uint8Array;
  readonly hostname: string;
  readonly log: Log;
}

/** Both roles of replication on one host: takes routed requests, peers and what operators ask for. */
export class ReplicaHost implements MigrationControl {
  readonly #options: ReplicaHostOptions;
  readonly #environment: SourceEnvironment;
  readonly #sources = new Map<string, SourceMigration>();
  readonly #targets: TargetMigrations;
  readonly #images = new Map<ImageSlot, SourceImage>();
  readonly #listeners = new Set<(snapshot: MigrationSnapshot) => void>();
  readonly #requests: RoutedRequests;
  readonly #requestIds = new RequestIds((requestId) => this.#startedBy(requestId));
  /** Of sources. */
  #streams = 0;
  #listener: PeerListener | undefined;
  #closed: Promise<void> | undefined;

  private constructor(options: ReplicaHostOptions) {
    this.#options = options;
    const { ends, clock, random, log, calls, blockSize, netLimit, newId, hostname } = options;
    const table = new ImageTable(ends.images);
    const grace = new GraceCounters(ends.grace);
    const store = remotePort<ImageStore>(ends.store.port, () => wakeParticipant(ends.store));
    const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
    const instance = newId();
    this.#environment = {
      clock,
      random,
      log,
      table,
      grace,
      turn,
      calls,
      store,
      hostBucket: new TokenBucket(clock, netLimit),
      turns: new Bottleneck({ maxConcurrent: COPY_BATCHES_MAX }),
      buffers: new BufferPool(),
      blockSize,
      instance,
      hostname,
      lanes: ends.mirrors,
      dataAddress: () => this.dataAddress,
      connect: (address, signal) => this.#connect(address, signal),
      openStream: (address, hello, signal) => this.#openStream(address, hello, signal),
      announce: (announcement) => this.#announce(announcement),
      publish: (snapshot) => this.#publish(snapshot),
    };
    this.#targets = new TargetMigrations({
      store,
      table,
      grace,
      calls,
      clock,
      turn,
      log,
      instance,
      writeRecord,
      changed: (snapshot) => this.#publish(snapshot),
      ...(options.newToken && { newToken: options.newToken }),
      host: hostname,
    });
    const find: FindHandler = (slot) => {
      const source = this.#images.get(slot);
      if (source) return (request, reply) => source.writer.handle(request, reply);
      const target = this.#targets.imageAt(slot);
      return target && ((request, reply) => target.routed(request, reply));
    };
    this.#requests = new RoutedRequests(ends.participants, table, calls, find, clock);
  }

  /** Resolves when peers can connect. UNAVAILABLE: the address cannot be listened on. */
  static async open(options: ReplicaHostOptions): Promise<ReplicaHost> {
    const host = new ReplicaHost(options);
    const { data, tls, clock, peerTimeout, log } = options;
    host.#listener = await PeerListener.listen({
      ...data,
      tls,
      clock,
      peerTimeout,
      onHello: (connection, hello) => host.#serve(connection, host.#targets.accept(connection, hello)),
      onStream: (connection, hello) => host.#serve(connection, host.#targets.acceptStream(connection, hello)),
      log,
    });
    return host;
  }

  /** A defect in what a peer's hello leads to costs that connection, and not the disks of this host. */
  #serve(connection: PeerConnection, served: Promise<void>): void {
    served.catch((error: unknown) => {
      this.#options.log('error', 'internal error while a peer is served', { ...plainError(error) });
      connection.destroy();
    });
  }

  /** Where peers reach this host, as `host:port`. */
  get dataAddress(): string {
    const { host, port } = parseHostPort(this.#listener!.address);
    return formatHostPort({ host: WILDCARDS.includes(host) ? this.#options.hostname : host, port });
  }

  start(request: MigrationRequest): Promise<MigrationSnapshot> {
    return this.#requestIds.once(request, () => this.#start(request));
  }

  async #start(request: MigrationRequest): Promise<MigrationSnapshot> {
    if (this.#closed) throw new MigrateFsError('UNAVAILABLE', 'the daemon is stopping');
    const id = this.#options.newId();
    const migration = await startMigration(this.#environment, id, request, {
      register: (image, owner) => {
        this.#images.set(image.pinned.slot, image);
        void owner.released.then(() => {
          if (this.#images.get(image.pinned.slot) === image) this.#images.delete(image.pinned.slot);
        });
      },
      active: () =>
        [...this.#sources.values()]
          .filter(({ state }) => !isFinal(state))
          .map(({ id: other, request: { images } }) => ({ id: other, images })),
    });
    this.#sources.set(id, migration);
    this.#forgetOldest();
    this.#publish(migration.snapshot());
    return migration.snapshot();
  }

  async get(id: string): Promise<MigrationSnapshot> {
    return this.#any(id).snapshot();
  }

  async list(): Promise<readonly MigrationSnapshot[]> {
    return [...this.#sources.values(), ...this.#targets.list()]
      .map((migration) => migration.snapshot())
      .sort((a, b) => a.startedAt - b.startedAt);
  }

  async setLimits(id: string, change: LimitChange, by: LimitSetter = 'operator'): Promise<MigrationSnapshot> {
    return this.#ask(id, (migration) => migration.setLimits(change, by));
  }

  async pause(id: string): Promise<MigrationSnapshot> {
    return this.#ask(id, (migration) => migration.pause());
  }

  async resume(id: string): Promise<MigrationSnapshot> {
    await this.#ask(id, (migration) => migration.resume());
    // Its driver picks the next stage in its own turn: the answer shows what it goes on with.
    await this.#environment.turn();
    return this.#source(id).snapshot();
  }

  async cancel(id: string, takeBack = false): Promise<MigrationSnapshot> {
    const migration = takeBack ? this.#source(id) : this.#any(id);
    await migration.cancel(takeBack);
    return migration.snapshot();
  }

  async cutover(id: string): Promise<MigrationSnapshot> {
    const migration = this.#source(id);
    await migration.cutover();
    return migration.snapshot();
  }

  async describeImages(names: readonly string[]): Promise<readonly ImageDescription[]> {
    const found = await this.#environment.store.describe(names);
    return names.map((name, i) => {
      const image = found[i]!;
      if ('code' in image) return { name, error: image };
      const { size, allocated, record, slot } = image;
      const role = record?.role ?? 'owner';
      const migrationId = slot === undefined ? undefined : this.#migrationAt(slot);
      return {
        name,
        size,
        allocated,
        role,
        generation: generation(record?.generation ?? 0),
        ...(record && role !== 'owner' && { peer: record.peer }),
        ...(migrationId !== undefined && { migrationId }),
      };
    });
  }

  #migrationAt(slot: ImageSlot): string | undefined {
    const source = [...this.#sources.values()].find(({ group }) => group.slots.includes(slot));
    return source?.id ?? this.#targets.migrationAt(slot)?.id;
  }

  async verify(what: string): Promise<readonly VerifyReport[]> {
    const byId = this.#sources.get(what);
    if (byId) return byId.verify();
    const migration = [...this.#sources.values()].find(
      ({ state, request }) => !isFinal(state) && request.images.includes(what),
    );
    if (migration) return migration.verify(what);
    if (this.#targets.get(what)) this.#source(what);
    throw new MigrateFsError('NOT_FOUND', `no migration '${what}' and no migrating image of that name`);
  }

  watch(listener: (snapshot: MigrationSnapshot) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** See `RoutedRequests`. */
  async interrupt(unique: bigint): Promise<void> {
    this.#requests.interrupt(unique);
  }

  /** Ends every migration here as a lost peer would, and answers whoever waits. Nothing is discarded. */
  shutdown(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    await Promise.all([...this.#sources.values()].map((migration) => migration.shutdown()));
    await this.#targets.close();
    await this.#listener?.close();
    await this.#environment.turns.stop({ dropWaitingJobs: true });
    this.#requests.close();
  }

  async #ask(id: string, act: (migration: SourceMigration) => void): Promise<MigrationSnapshot> {
    const migration = this.#source(id);
    act(migration);
    return migration.snapshot();
  }

  #startedBy(requestId: string): SourceMigration | undefined {
    return [...this.#sources.values()].find(({ request }) => request.requestId === requestId);
  }

  #source(id: string): SourceMigration {
    const source = this.#sources.get(id);
    if (source) return source;
    const target = this.#targets.get(id);
    if (!target)
      throw new MigrateFsError('NOT_FOUND', `no migration '${id}' here: migratefs status lists them`);
    throw new MigrateFsError(
      'FAILED_PRECONDITION',
      `migration ${id} is received here: ask the daemon whose data address is ${target.snapshot().peer}`,
    );
  }

  #any(id: string): Pick<SourceMigration, 'snapshot' | 'cancel'> {
    return this.#targets.get(id) ?? this.#source(id);
  }

  #connect(address: string, signal: AbortSignal): Promise<PeerConnection> {
    const { tls, clock, peerTimeout } = this.#options;
    return PeerConnection.connect({ ...parseHostPort(address), tls, clock, peerTimeout, signal });
  }

  async #openStream(
    address: string,
    hello: { readonly migrationId: string; readonly token: Uint8Array },
    signal: AbortSignal,
  ): Promise<StreamLink> {
    const { tls, clock, peerTimeout } = this.#options;
    const options = { ...parseHostPort(address), tls, clock, peerTimeout, signal };
    if (this.#streams >= STREAMS_MAX)
      throw new MigrateFsError('RESOURCE_EXHAUSTED', `${STREAMS_MAX} migrations have streams already`);
    this.#streams++;
    try {
      const { fd, keys } = await openStream(options, hello);
      const link = await StreamLink.open({
        fd,
        sendKey: keys?.send ?? null,
        receiveKey: keys?.receive ?? null,
      });
      void link.ended.then(() => this.#streams--);
      return link;
    } catch (error) {
      this.#streams--;
      throw error;
    }
  }

  #announce(announcement: BitmapAnnouncement): void {
    for (const participant of this.#options.ends.participants) {
      participant.port.postMessage(announcement);
      wakeParticipant(participant);
    }
  }

  #publish(snapshot: MigrationSnapshot): void {
    // A host that migrates nothing holds no more memory than before it ever did.
    if (isFinal(snapshot.state) && [...this.#sources.values()].every(({ state }) => isFinal(state)))
      this.#environment.buffers.clear();
    for (const listener of this.#listeners) listener(snapshot);
  }

  #forgetOldest(): void {
    if (this.#sources.size <= HISTORY_MAX) return;
    for (const [id, { state }] of this.#sources) {
      if (!isFinal(state)) continue;
      this.#sources.delete(id);
      return;
    }
  }
}
