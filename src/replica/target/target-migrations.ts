import type { PinnedImage } from '../../fs/image-store.js';
import type { ImageSlot } from '../../fs/image-table.js';
import { close } from '../../fs/libc.js';
import { MigrateFsError } from '../../leaves/errors.js';
import { isFinal } from '../../leaves/migration.js';
import { failureFor } from '../wire/failure.js';
import { PROTOCOL_VERSION } from '../wire/frame.js';
import type { migratefs } from '../wire/generated/data.js';
import { acceptStream, refuseStream } from '../wire/open-stream.js';
import type { PeerConnection } from '../wire/peer-connection.js';
import type { MigrationTerms } from './migration-terms.js';
import { readTerms } from './migration-terms.js';
import {
  adoptReplicas,
  checkSpace,
  createReplicas,
  discardForgotten,
  pinAbandoned,
  releaseAll,
  takeOver,
} from './replica-files.js';
import type { TargetContext } from './target-context.js';
import type { TargetImage } from './target-image.js';
import { TargetMigration } from './target-migration.js';

/** Migrations received at the same time. */
const ACTIVE_MAX = 256;
/** Received over streams at the same time: each has a thread. */
const STREAMS_MAX = 16;
/** Migrations remembered, ended ones included. */
const HISTORY_MAX = 1000;

type Reply = migratefs.data.HelloReply.$Properties;

/** Every migration that this host receives or has received, and the door through which sources come in. */
export class TargetMigrations {
  readonly #context: TargetContext;
  readonly #byId = new Map<string, TargetMigration>();
  readonly #bySlot = new Map<ImageSlot, TargetImage>();
  /** Ids whose hello is being answered: the same migration is not set up twice at once. */
  readonly #busy = new Set<string>();
  #closing = false;

  constructor(context: TargetContext) {
    this.#context = context;
  }

  get(id: string): TargetMigration | undefined {
    return this.#byId.get(id);
  }

  list(): TargetMigration[] {
    return [...this.#byId.values()];
  }

  /** The replica in a slot, to which routed requests go. */
  imageAt(slot: ImageSlot): TargetImage | undefined {
    return this.#bySlot.get(slot);
  }

  /** The one under way that the replica in a slot belongs to. */
  migrationAt(slot: ImageSlot): TargetMigration | undefined {
    const image = this.#bySlot.get(slot);
    return image && this.list().find(({ images }) => images.includes(image));
  }

  /** Answers a hello on a paused connection, and takes the migration on or closes the connection. Never rejects. */
  async accept(connection: PeerConnection, hello: migratefs.data.Hello): Promise<void> {
    const { log } = this.#context;
    try {
      const terms = readTerms(hello);
      if (this.#closing) throw new MigrateFsError('UNAVAILABLE', 'the target daemon is stopping');
      if (this.#busy.has(terms.id))
        throw new MigrateFsError('UNAVAILABLE', `migration ${terms.id} is being set up on the target`);
      this.#busy.add(terms.id);
      try {
        await this.#serve(connection, terms);
      } finally {
        this.#busy.delete(terms.id);
      }
    } catch (error) {
      const failure = failureFor(error);
      log('warn', 'hello refused', { peer: connection.remote, code: failure.code, error: failure.message });
      connection.send({ helloReply: this.#reply({ failure }) });
      connection.close(new MigrateFsError(failure.code, failure.message));
    }
  }

  /** Answers the hello of a stream, and has its migration serve it or closes the connection. Never rejects. */
  async acceptStream(
    connection: PeerConnection,
    { protocolVersion, migrationId, token }: migratefs.data.StreamHello,
  ): Promise<void> {
    const { log } = this.#context;
    const migration = this.#byId.get(migrationId);
    const expected =
      protocolVersion === PROTOCOL_VERSION && this.#streams < STREAMS_MAX && migration?.expectsStream(token);
    if (this.#closing || !migration || !expected) {
      const refusal = new MigrateFsError('FAILED_PRECONDITION', `no stream is expected for '${migrationId}'`);
      log('warn', 'stream refused', { peer: connection.remote, error: refusal.message });
      refuseStream(connection, refusal);
      return;
    }
    try {
      const { fd, keys } = await acceptStream(connection);
      const end = { fd, sendKey: keys?.send ?? null, receiveKey: keys?.receive ?? null };
      if (!migration.attachStream(end, token)) close(fd);
    } catch (error) {
      log('warn', 'no stream', { peer: connection.remote, error: (error as Error).message });
    }
  }

  /** Stops receiving; replicas stay on disk for a RESUME with the next run. */
  async close(): Promise<void> {
    this.#closing = true;
    await Promise.all(this.list().map((migration) => migration.shutDown()));
  }

  #reply(fields: Reply): Reply {
    const { instance, host } = this.#context;
    return { protocolVersion: PROTOCOL_VERSION, targetInstance: instance, targetHost: host, ...fields };
  }

  #serve(connection: PeerConnection, terms: MigrationTerms): Promise<void> {
    switch (terms.purpose) {
      case 'start':
        return this.#start(connection, terms);
      case 'resume':
        return this.#resume(connection, terms);
      case 'discard':
        return this.#discard(connection, terms);
      default:
        return terms.purpose satisfies never;
    }
  }

  async #start(connection: PeerConnection, terms: MigrationTerms): Promise<void> {
    if (this.#byId.has(terms.id))
      throw new MigrateFsError('ALREADY_EXISTS', `migration ${terms.id} exists on the target`);
    const active = this.list().filter(({ state }) => !isFinal(state));
    if (active.length >= ACTIVE_MAX)
      throw new MigrateFsError(
        'RESOURCE_EXHAUSTED',
        `the target receives ${active.length} migrations already`,
      );
    const abandoned = await this.#abandoned(terms);
    const adopted = abandoned !== undefined;
    const pinned = abandoned ?? (await this.#create(terms));
    if (connection.isClosed) {
      // Nobody was told that these replicas exist; those that were here before can be taken over again.
      await releaseAll(this.#context, pinned, !adopted);
      return;
    }
    // What was here before stays if the source leaves at once.
    const migration = this.#add(terms, pinned, adopted ? 'interrupted' : 'preparing');
    this.#context.changed(migration.snapshot());
    const token = this.#newToken();
    connection.send({ helloReply: this.#reply({ adopted, streamToken: token }) });
    migration.attach(connection, token);
  }

  get #streams(): number {
    return this.list().filter(({ hasStream }) => hasStream).length;
  }

  /** Null: no stream is taken. */
  #newToken(): Uint8Array | null {
    return this.#streams < STREAMS_MAX ? (this.#context.newToken?.() ?? null) : null;
  }

  async #create(terms: MigrationTerms): Promise<PinnedImage[]> {
    await checkSpace(this.#context, terms, this.list());
    return createReplicas(this.#context, terms);
  }

  /**
   * The replicas that the source left here before it was restarted and forgot about them, now of the migration of the
   * terms. Undefined: there are none, or something else is in the way.
   */
  async #abandoned(terms: MigrationTerms): Promise<PinnedImage[] | undefined> {
    if (terms.source === '') return undefined;
    const names = new Set(terms.images.map(({ name }) => name));
    const earlier = this.list().find(
      ({ isAbandoned, images }) => isAbandoned && images.some(({ name }) => names.has(name)),
    );
    if (!earlier) return this.#takeOver(terms);
    const { id, images } = earlier;
    const same = images.length === names.size && images.every(({ name }) => names.has(name));
    if (!same || earlier.terms.source !== terms.source || this.#busy.has(id)) return undefined;
    this.#busy.add(id); // its source cannot come back meanwhile
    try {
      await earlier.leaveTo(terms.id);
      return await this.#takeOver(terms);
    } finally {
      this.#busy.delete(id);
    }
  }

  async #takeOver(terms: MigrationTerms): Promise<PinnedImage[] | undefined> {
    const pinned = await pinAbandoned(this.#context, terms);
    if (!pinned) return undefined;
    try {
      await checkSpace(this.#context, terms, this.list(), pinned);
    } catch (error) {
      await releaseAll(this.#context, pinned, false);
      throw error;
    }
    return takeOver(this.#context, terms, pinned);
  }

  async #resume(connection: PeerConnection, terms: MigrationTerms): Promise<void> {
    const known = this.#byId.get(terms.id);
    if (known) return this.#resumeKnown(connection, terms, known);
    const { pinned, owned } = await adoptReplicas(this.#context, terms);
    if (owned === pinned.length) {
      await releaseAll(this.#context, pinned, false);
      connection.send({ helloReply: this.#reply({ taken: true }) });
      connection.close();
      return;
    }
    const migration = this.#add(terms, pinned, 'interrupted');
    // Ownership of one image is persisted only when all are whole and on disk: nothing to compare, only to offer again.
    const remembers = owned > 0;
    if (remembers) migration.expectOffer();
    const token = remembers ? null : this.#newToken();
    connection.send({ helloReply: this.#reply({ remembers, streamToken: token }) });
    migration.attach(connection, token);
  }

  async #resumeKnown(
    connection: PeerConnection,
    terms: MigrationTerms,
    migration: TargetMigration,
  ): Promise<void> {
    const names = ({ images }: MigrationTerms): string => images.map(({ name }) => name).join('\0');
    if (names(migration.terms) !== names(terms))
      throw new MigrateFsError('INVALID_ARGUMENT', `migration ${terms.id} has other images on the target`);
    await migration.quiesce();
    const { state, error } = migration.snapshot();
    if (state === 'cancelled' || state === 'failed') {
      // Its source was lost before it began: nobody has cancelled it.
      const code = error?.code === 'UNAVAILABLE' ? 'FAILED_PRECONDITION' : 'CANCELLED';
      throw new MigrateFsError(code, `migration ${terms.id} was given up on the target (${state})`);
    }
    const taken = state === 'completed';
    const token = taken ? null : this.#newToken();
    connection.send({ helloReply: this.#reply({ remembers: true, taken, streamToken: token }) });
    migration.attach(connection, token);
  }

  async #discard(connection: PeerConnection, terms: MigrationTerms): Promise<void> {
    const known = this.#byId.get(terms.id);
    if (known) {
      await known.quiesce();
      await known.discard();
    } else await discardForgotten(this.#context, terms);
    connection.send({ helloReply: this.#reply({}) });
    connection.send({ discarded: {} });
    connection.close();
  }

  #add(
    terms: MigrationTerms,
    pinned: readonly PinnedImage[],
    state: 'preparing' | 'interrupted',
  ): TargetMigration {
    const migration = new TargetMigration(this.#context, terms, pinned, state, ({ images }) => {
      for (const image of images) if (this.#bySlot.get(image.slot) === image) this.#bySlot.delete(image.slot);
    });
    this.#byId.set(migration.id, migration);
    for (const image of migration.images) this.#bySlot.set(image.slot, image);
    this.#forgetOldest();
    return migration;
  }

  #forgetOldest(): void {
    if (this.#byId.size <= HISTORY_MAX) return;
    for (const [id, { state }] of this.#byId) {
      if (!isFinal(state)) continue;
      this.#byId.delete(id);
      return;
    }
  }
}
