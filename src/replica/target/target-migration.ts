import assert from 'node:assert/strict';
import { fdatasync } from 'node:fs';
import { Errno } from '../../fs/errno.js';
import type { PinnedImage } from '../../fs/image-store.js';
import { ImageMode } from '../../fs/image-table.js';
import type { RoutedRequest } from '../../fs/participant.js';
import type { PlainError } from '../../leaves/errors.js';
import { MigrateFsError, plainError } from '../../leaves/errors.js';
import type { MigrationSnapshot, MigrationState } from '../../leaves/migration.js';
import { isFinal, MIGRATION_EDGES } from '../../leaves/migration.js';
import type { Millis } from '../../leaves/units.js';
import { bytes, UNLIMITED } from '../../leaves/units.js';
import { RateMeter } from '../source/rate-meter.js';
import type { migratefs } from '../wire/generated/data.js';
import type { PeerConnection } from '../wire/peer-connection.js';
import type { ReplyRouted } from './held-requests.js';
import { HeldRequests } from './held-requests.js';
import type { MigrationTerms } from './migration-terms.js';
import { checkGenerations, takeOwnership } from './ownership.js';
import type { Reception } from './reception.js';
import { receive } from './reception.js';
import { releaseAll } from './replica-files.js';
import type { TargetContext } from './target-context.js';
import { TargetImage } from './target-image.js';

/** States that a source may announce. */
const ANNOUNCED: readonly string[] = [
  'bulk-copy',
  'dirty-resend',
  'mirroring',
  'cutover',
  'paused',
] satisfies MigrationState[];

/**
 * One migration as its target sees it: replicas that a source fills, and the moment they become this host's own.
 *
 * Invariants: before `completed` no guest write reaches a replica's file; from the offer on no frame does, and neither
 * discard nor cancel removes one. All images change hands together.
 */
export class TargetMigration {
  readonly terms: MigrationTerms;
  readonly images: readonly TargetImage[];
  readonly #context: TargetContext;
  readonly #released: (migration: TargetMigration) => void;
  readonly #held: HeldRequests;
  readonly #startedAt: Millis;
  readonly #rate: RateMeter;
  #state: MigrationState;
  #endedAt: Millis | undefined;
  #error: PlainError | undefined;
  #reception: Reception | undefined;
  /** Set when the source has offered the images: it will never write to them again. */
  #offered = false;
  #taking: Promise<void> | undefined;
  #cutoverRequested = false;
  #cutoverStall: Millis | undefined;
  /** Giving the pins back, and the replicas up when they are discarded. */
  #releasing: Promise<void> | undefined;
  /** The daemon stops: nothing is held any more. */
  #stopping = false;
  #sourceFailure: PlainError | undefined;
  #bytesTotal: number;
  #bytesLeft: number;
  #bytesReceived = 0;
  #bytesMirrored = 0;

  /**
   * Over pinned replicas, in the order of the terms. `state` is `interrupted` for adopted ones. `released` is called
   * when the slots belong to this migration no more.
   */
  constructor(
    context: TargetContext,
    terms: MigrationTerms,
    pinned: readonly PinnedImage[],
    state: 'preparing' | 'interrupted',
    released: (migration: TargetMigration) => void,
  ) {
    this.#released = released;
    assert(pinned.length === terms.images.length);
    this.#context = context;
    this.terms = terms;
    this.#state = state;
    this.#startedAt = context.clock.wall();
    this.#rate = new RateMeter(context.clock);
    this.#held = new HeldRequests(context.clock, (count) => this.#onHeldExpired(count));
    this.images = pinned.map(
      (image, index) =>
        new TargetImage(image, terms.images[index]!, context.calls, (...routed) => this.#onRouted(...routed)),
    );
    this.#bytesTotal = terms.images.reduce((sum, { allocated }) => sum + allocated, 0);
    this.#bytesLeft = this.#bytesTotal;
  }

  get id(): string {
    return this.terms.id;
  }

  get state(): MigrationState {
    return this.#state;
  }

  get connected(): boolean {
    return this.#reception !== undefined;
  }

  /** Bytes the source has still to send, as far as is known. */
  get bytesPromised(): number {
    if (isFinal(this.#state)) return 0;
    const allocated = this.terms.images.reduce((sum, image) => sum + image.allocated, 0);
    const copying = this.#state === 'preparing' || this.#state === 'bulk-copy';
    return Math.max(this.#bytesLeft, copying ? allocated - this.#bytesReceived : 0);
  }

  /** Takes frames from `connection` until it closes; what came over an earlier one is not listened to any more. */
  attach(connection: PeerConnection): void {
    this.#drop();
    const reception = receive(connection, this.images, this.#context, {
      data: (length, mirror) => this.#onData(length, mirror),
      phase: (phase) => this.#onPhase(phase),
      offer: (offer) => this.#onOffer(offer.generations),
      discard: () => void this.#onDiscard(),
      failed: (failure) => this.#onSourceFailed(failure),
      admits: () => this.#admits(),
    });
    this.#reception = reception;
    this.#held.setConnected(true);
    void connection.closed.then((reason) => {
      if (this.#reception === reception) this.#onLost(reason);
    });
  }

  /** After a restart in the middle of taking the images: the offer was made, the source is fenced. */
  expectOffer(): void {
    this.#offered = true;
    this.#setModes();
  }

  /**
   * The source is back: leaves the old connection and waits until all that came over it has taken effect, so that
   * nothing old can overwrite what is sent next.
   */
  async quiesce(): Promise<void> {
    this.#drop();
    if (!isFinal(this.#state) && this.#state !== 'interrupted') this.#interrupt();
    await this.#taking;
    await this.#drained();
  }

  /**
   * An operator here gives the migration up; the replicas are gone when this resolves. Idempotent.
   * FAILED_PRECONDITION: the images were offered to this host already, or are its own.
   */
  async cancel(): Promise<void> {
    if (this.#state !== 'cancelled') {
      this.#refuseAfterOffer('cancelled');
      const reason = new MigrateFsError('CANCELLED', `migration ${this.id} was cancelled on the target`);
      this.#transitionTo('cancelled', plainError(reason));
      this.#reception?.connection.send({ failure: plainError(reason) });
      this.#releasing = this.#remove();
    }
    await this.#releasing;
    this.#drop();
  }

  /** Whether it waits for a source that may have forgotten it, and nothing was offered. */
  get isAbandoned(): boolean {
    return this.#state === 'interrupted' && !this.connected && !this.#offered;
  }

  /** A later migration takes the replicas over: ends as cancelled, and their files stay. Only while `isAbandoned`. */
  async leaveTo(successor: string): Promise<void> {
    assert(this.isAbandoned, `migration ${this.id} is not abandoned`);
    const reason = new MigrateFsError('CANCELLED', `migration ${successor} has taken the replicas over`);
    this.#transitionTo('cancelled', plainError(reason));
    this.#held.refuseAll();
    this.#releasing = this.#drained().then(() => this.#release(false));
    await this.#releasing;
  }

  /** The source gives the migration up; the replicas are gone when this resolves. FAILED_PRECONDITION as `cancel`. */
  async discard(): Promise<void> {
    if (this.#state !== 'cancelled' && this.#state !== 'failed') {
      this.#refuseAfterOffer('discarded');
      this.#transitionTo(this.#sourceFailure ? 'failed' : 'cancelled', this.#sourceFailure);
      this.#releasing = this.#remove();
    }
    await this.#releasing;
  }

  /** The daemon stops: waiting guests get EROFS, replicas stay for a RESUME. */
  async shutDown(): Promise<void> {
    this.#drop();
    if (!isFinal(this.#state) && this.#state !== 'interrupted') this.#interrupt();
    await this.#taking;
    this.#stopping = true;
    this.#held.refuseAll();
    if (!isFinal(this.#state)) {
      this.#setModes();
      await this.#drained();
      this.#releasing = this.#release(false);
    }
    await this.#releasing;
  }

  snapshot(): MigrationSnapshot {
    const { terms } = this;
    return {
      id: terms.id,
      role: 'target',
      state: this.#state,
      peer: terms.source,
      images: this.images.map(({ name, size, allocated, generation }) => ({
        name,
        size,
        allocated,
        left: bytes(this.images.length === 1 ? this.#bytesLeft : 0),
        dirty: bytes(0),
        generation,
      })),
      cutover: terms.cutover,
      priority: terms.priority,
      startedAt: this.#startedAt,
      ...(this.#endedAt === undefined ? {} : { endedAt: this.#endedAt }),
      bytesTotal: bytes(this.#bytesTotal),
      bytesLeft: bytes(this.#bytesLeft),
      bytesSent: bytes(this.#bytesReceived),
      bytesResent: bytes(0),
      bytesMirrored: bytes(this.#bytesMirrored),
      netRate: this.#rate.rate,
      writeRate: 0,
      dirtyRate: 0,
      netLimit: UNLIMITED,
      diskLimit: UNLIMITED,
      ...(this.#error ? { error: this.#error } : {}),
      ...(this.#cutoverStall === undefined ? {} : { cutoverStall: this.#cutoverStall }),
    };
  }

  #transitionTo(next: MigrationState, error?: PlainError): void {
    const from = this.#state;
    assert(MIGRATION_EDGES[from].includes(next), `no edge from ${from} to ${next}`);
    this.#state = next;
    this.#error = error;
    if (isFinal(next)) this.#endedAt = this.#context.clock.wall();
    this.#context.log('info', 'migration (target) state', {
      migration: this.id,
      from,
      to: next,
      ...(error ? { error: error.message } : {}),
    });
    this.#setModes();
    this.#context.changed(this.snapshot());
  }

  /** Guest writes come to this thread only when they may be held; otherwise participants refuse them themselves. */
  #setModes(): void {
    const { table } = this.#context;
    const mode =
      this.#state === 'completed' ? ImageMode.idle : this.#mayHold() ? ImageMode.routed : ImageMode.fenced;
    for (const { slot } of this.images) table.setMode(slot, mode);
  }

  /**
   * Once a guest's change is held, or the images were offered, a VM runs here: then what follows waits as well,
   * whatever becomes of the connection, until the longest stall is over.
   */
  #mayHold(): boolean {
    if (this.#stopping || isFinal(this.#state)) return false;
    if (this.#held.size > 0 || this.#state === 'cutover') return true;
    if (this.#state === 'interrupted') return this.#offered;
    return this.#state === 'mirroring' && this.terms.cutover === 'on-first-write';
  }

  #onRouted(image: TargetImage, request: RoutedRequest, reply: ReplyRouted): void {
    if (request.op === 'fsync')
      fdatasync(request.fd, (error) => reply(error ? (error.errno ?? -Errno.EIO) : 0));
    else if (this.#state === 'completed') reply(image.perform(request));
    else if (this.#mayHold()) {
      this.#held.hold(request, reply);
      this.#requestCutover();
    } else reply(-Errno.EROFS);
  }

  #requestCutover(): void {
    if (this.#cutoverRequested || this.#state !== 'mirroring' || this.#held.size === 0) return;
    this.#cutoverRequested = true;
    this.#context.log('info', 'first guest write on the target: asking for the images', {
      migration: this.id,
    });
    this.#reception?.connection.send({ cutoverRequest: {} });
  }

  #onHeldExpired(count: number): void {
    this.#cutoverRequested = false;
    if (!isFinal(this.#state)) this.#setModes();
    this.#context.log('error', 'no ownership in time: guest writes refused (EROFS)', {
      migration: this.id,
      count,
      state: this.#state,
    });
  }

  #onData(length: number, mirror: boolean): void {
    this.#bytesReceived += length;
    if (mirror) this.#bytesMirrored += length;
    this.#rate.add(length);
  }

  #onPhase({ state, bytesTotal, bytesLeft }: migratefs.data.Phase): boolean {
    this.#bytesTotal = bytes(bytesTotal);
    this.#bytesLeft = bytes(bytesLeft);
    if (isFinal(this.#state)) return false;
    if (!ANNOUNCED.includes(state)) return true;
    const next = state as MigrationState;
    if (next === this.#state) {
      this.#context.changed(this.snapshot());
      return true;
    }
    if (!MIGRATION_EDGES[this.#state].includes(next))
      throw new MigrateFsError('INVALID_ARGUMENT', `phase ${next} after ${this.#state}`);
    if (this.#offered && next !== 'cutover')
      throw new MigrateFsError('FAILED_PRECONDITION', `phase ${next} after the cutover offer`);
    this.#transitionTo(next);
    if (next === 'mirroring') this.#onInSync();
    return true;
  }

  /** Guests that came during a cutover that failed, or before a break, get what they asked for after all. */
  #onInSync(): void {
    this.#cutoverRequested = false;
    if (this.terms.cutover === 'on-first-write') this.#requestCutover();
    else if (this.#held.refuseAll() > 0) this.#setModes();
  }

  #onOffer(generations: readonly number[]): void {
    if (this.#state === 'completed') {
      this.#reception?.connection.send({ cutoverTaken: {} });
      return;
    }
    if (!['mirroring', 'cutover', 'interrupted'].includes(this.#state))
      throw new MigrateFsError('INVALID_ARGUMENT', `cutover offer while ${this.#state}`);
    checkGenerations(this.images, generations);
    this.#offered = true;
    if (this.#state !== 'cutover') this.#transitionTo('cutover');
    this.#taking ??= this.#take(generations).finally(() => {
      this.#taking = undefined;
    });
  }

  /** Makes the images this host's own; on an error everything stays as it was, and the source may offer again. */
  async #take(generations: readonly number[]): Promise<void> {
    const { log, clock, table } = this.#context;
    const began = clock.now();
    try {
      await takeOwnership(this.#context, this.terms, this.images, generations);
    } catch (error) {
      log('error', 'cannot take the images over', { migration: this.id, error: (error as Error).message });
      this.#reception?.connection.send({ failure: plainError(error) });
      return;
    }
    // Held writes come first: what a guest writes from now on must not be overtaken by what it wrote before.
    const bySlot = new Map(this.images.map((image) => [image.slot, image]));
    this.#cutoverStall = this.#held.releaseAll((request) => bySlot.get(request.slot)!.perform(request));
    this.#bytesLeft = 0;
    this.#transitionTo('completed');
    this.#reception?.connection.send({ cutoverTaken: {} });
    for (const { slot } of this.images) table.setUncached(slot, false);
    log('info', 'took the images over', {
      migration: this.id,
      milliseconds: clock.now() - began,
      stall: this.#cutoverStall,
    });
    this.#releasing = this.#letGo();
  }

  async #letGo(): Promise<void> {
    const { store, log } = this.#context;
    for (const { slot, name } of this.images)
      await store.invalidate(slot).catch((error: Error) => {
        log('warn', 'cannot drop cached pages', { image: name, error: error.message });
      });
    await this.#release(false);
  }

  async #onDiscard(): Promise<void> {
    const connection = this.#reception?.connection;
    try {
      await this.discard();
      connection?.send({ discarded: {} });
    } catch (error) {
      connection?.send({ failure: plainError(error) });
    }
  }

  #onSourceFailed(failure: migratefs.data.Failure): void {
    this.#sourceFailure = { code: failure.code as PlainError['code'], message: failure.message };
    this.#context.log('warn', 'the source has failed', { migration: this.id, error: failure.message });
  }

  #onLost(reason: MigrateFsError): void {
    this.#reception = undefined;
    this.#held.setConnected(false);
    this.#cutoverRequested = false;
    if (isFinal(this.#state) || this.#state === 'interrupted') return;
    if (this.#state === 'preparing') this.#giveUp(reason);
    else this.#interrupt(reason);
  }

  /** The source left before it began: it does not know that it was accepted, so nobody would ever come back. */
  #giveUp(reason: MigrateFsError): void {
    this.#transitionTo('cancelled', plainError(reason));
    this.#releasing = this.#remove();
  }

  #interrupt(reason = new MigrateFsError('UNAVAILABLE', 'the source connected anew')): void {
    this.#cutoverRequested = false;
    this.#transitionTo('interrupted', plainError(reason));
  }

  #drop(): void {
    const reception = this.#reception;
    this.#reception = undefined;
    this.#held.setConnected(false);
    reception?.connection.close();
  }

  /** Whether frames may touch the images; what a source still sends after a cancellation is dropped. */
  #admits(): boolean {
    if (this.#offered || this.#state === 'completed')
      throw new MigrateFsError('FAILED_PRECONDITION', `migration ${this.id}: the target owns the images`);
    return !isFinal(this.#state);
  }

  #refuseAfterOffer(what: string): void {
    if (this.#state === 'completed')
      throw new MigrateFsError(
        'FAILED_PRECONDITION',
        `migration ${this.id} is completed: this host owns the images, they are not ${what}`,
      );
    if (this.#offered)
      throw new MigrateFsError(
        'FAILED_PRECONDITION',
        `migration ${this.id} is at its cutover: the source has fenced the images, they are not ${what}`,
      );
  }

  async #drained(): Promise<void> {
    await Promise.all(this.images.map((image) => image.drained()));
  }

  async #remove(): Promise<void> {
    this.#held.refuseAll();
    await this.#drained();
    await this.#release(true);
  }

  /** Gives the pins back once no participant can hand over a change that it decided on under an earlier mode. */
  async #release(remove: boolean): Promise<void> {
    const { grace, turn } = this.#context;
    const slots = this.images.map(({ slot }) => slot);
    await grace.elapsed(slots, turn);
    await turn();
    await releaseAll(this.#context, this.images, remove);
    this.#released(this);
  }
}
