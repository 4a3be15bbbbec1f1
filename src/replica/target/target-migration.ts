import assert from 'node:assert/strict';
import type { PinnedImage } from '../../fs/image-store.js';
import type { PlainError } from '../../leaves/errors.js';
import { MigrateFsError, plainError } from '../../leaves/errors.js';
import type { MigrationSnapshot, MigrationState } from '../../leaves/migration.js';
import { isFinal, MIGRATION_EDGES } from '../../leaves/migration.js';
import type { Millis } from '../../leaves/units.js';
import type { StreamEnd } from '../stream-messages.js';
import { failureFor } from '../wire/failure.js';
import type { migratefs } from '../wire/generated/data.js';
import type { PeerConnection } from '../wire/peer-connection.js';
import { backingError } from './backing-file.js';
import { FlushAhead } from './flush-ahead.js';
import { GuestGate } from './guest-gate.js';
import { IncomingStream } from './incoming-stream.js';
import type { MigrationTerms } from './migration-terms.js';
import { checkGenerations, takeOwnership } from './ownership.js';
import { Received } from './received.js';
import type { Reception } from './reception.js';
import { receive } from './reception.js';
import { ReplicaPins } from './replica-pins.js';
import { describeReception } from './snapshot.js';
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
  readonly #gate: GuestGate;
  readonly #pins: ReplicaPins;
  readonly #startedAt: Millis;
  readonly #received: Received;
  #state: MigrationState;
  #endedAt: Millis | undefined;
  #error: PlainError | undefined;
  readonly #ahead: FlushAhead;
  readonly #stream: IncomingStream;
  #reception: Reception | undefined;
  /** Set when the source has offered the images: it will never write to them again. */
  #offered = false;
  #taking: Promise<void> | undefined;
  #cutoverStall: Millis | undefined;
  #sourceFailure: PlainError | undefined;

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
    assert(pinned.length === terms.images.length);
    this.#context = context;
    this.terms = terms;
    this.#state = state;
    this.#startedAt = context.clock.wall();
    this.#received = new Received(context.clock, terms);
    this.#gate = new GuestGate({
      context,
      terms,
      images: () => this.#counted(),
      state: () => this.#state,
      offered: () => this.#offered,
      send: (frame) => this.#reception?.connection.send(frame),
      // What a disk has left to do it does while the source fences the images.
      asked: () => this.#ahead.flush(),
    });
    this.#ahead = new FlushAhead({
      clock: context.clock,
      images: () => this.#counted(),
      failed: (index, error) =>
        this.#onChangeFailed(backingError(`cannot sync ${this.images[index]!.name}`, error)),
    });
    this.#stream = new IncomingStream({
      clock: context.clock,
      images: () => this.images,
      received: this.#received,
      failed: (error) => this.#onChangeFailed(error),
      rejected: (reason) => this.#onStreamRejected(reason),
    });
    this.images = pinned.map(
      (image, index) =>
        new TargetImage(image, terms.images[index]!, context.calls, (...routed) =>
          this.#gate.handle(...routed),
        ),
    );
    this.#pins = new ReplicaPins(
      context,
      this.images,
      () => Promise.all([this.#stream.ended, this.#ahead.idle]),
      () => released(this),
    );
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
    return this.#received.promised(this.#state);
  }

  /**
   * Takes frames from `connection` until it closes; what came over an earlier one is not listened to any more. `token`:
   * lets a stream in beside it.
   */
  attach(connection: PeerConnection, token: Uint8Array | null): void {
    this.#drop();
    this.#stream.expect(token);
    const reception = receive(connection, this.images, this.#context, {
      data: (length, mirror) => this.#received.add(length, mirror),
      phase: (phase) => this.#onPhase(phase),
      offer: (offer) => this.#onOffer(offer.generations),
      discard: () => void this.#onDiscard(),
      failed: (failure) => this.#onSourceFailed(failure),
      admits: () => this.#admits(),
    });
    this.#reception = reception;
    this.#gate.setConnected(true);
    this.#ahead.start();
    void connection.closed.then((reason) => {
      if (this.#reception === reception) this.#onLost(reason);
    });
  }

  get hasStream(): boolean {
    return this.#stream.isOpen;
  }

  /** Whether the token is that of the present connection, and no stream has come yet. */
  expectsStream(token: Uint8Array): boolean {
    return this.connected && this.#admissible && this.#stream.expects(token);
  }

  /** Applies what comes over it until it, or the connection, closes. False: it comes too late. */
  attachStream(end: StreamEnd, token: Uint8Array): boolean {
    if (!this.expectsStream(token)) return false;
    this.#stream.open(end);
    return true;
  }

  /** After a restart in the middle of taking the images: the offer was made, the source is fenced. */
  expectOffer(): void {
    this.#offered = true;
    this.#gate.setModes();
  }

  /**
   * The source is back: leaves the old connection and waits until all that came over it has taken effect, so that
   * nothing old can overwrite what is sent next.
   */
  async quiesce(): Promise<void> {
    this.#drop();
    if (!isFinal(this.#state) && this.#state !== 'interrupted') this.#interrupt();
    await this.#taking;
    await this.#pins.drained();
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
      this.#reception?.connection.send({ failure: failureFor(reason) });
      this.#remove();
    }
    await this.#pins.released;
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
    this.#gate.refuseAll();
    this.#pins.keep();
    await this.#pins.released;
  }

  /** The source gives the migration up; the replicas are gone when this resolves. FAILED_PRECONDITION as `cancel`. */
  async discard(): Promise<void> {
    if (this.#state !== 'cancelled' && this.#state !== 'failed') {
      this.#refuseAfterOffer('discarded');
      this.#transitionTo(this.#sourceFailure ? 'failed' : 'cancelled', this.#sourceFailure);
      this.#remove();
    }
    await this.#pins.released;
  }

  /** The daemon stops: waiting guests get EROFS, replicas stay for a RESUME. */
  async shutDown(): Promise<void> {
    this.#drop();
    if (!isFinal(this.#state) && this.#state !== 'interrupted') this.#interrupt();
    await this.#taking;
    this.#gate.close();
    if (!isFinal(this.#state)) {
      this.#gate.setModes();
      this.#pins.keep();
    }
    await this.#pins.released;
  }

  snapshot(): MigrationSnapshot {
    this.#counted();
    return describeReception({
      terms: this.terms,
      state: this.#state,
      images: this.images,
      received: this.#received,
      startedAt: this.#startedAt,
      endedAt: this.#endedAt,
      error: this.#error,
      cutoverStall: this.#cutoverStall,
    });
  }

  #transitionTo(next: MigrationState, error?: PlainError): void {
    const from = this.#state;
    assert(MIGRATION_EDGES[from].includes(next), `no edge from ${from} to ${next}`);
    this.#state = next;
    this.#error = error;
    if (isFinal(next)) {
      this.#endedAt = this.#context.clock.wall();
      this.#ahead.stop();
    }
    this.#context.log('info', 'migration (target) state', {
      migration: this.id,
      from,
      to: next,
      ...(error ? { error: error.message } : {}),
    });
    this.#gate.setModes();
    this.#context.changed(this.snapshot());
  }

  #onPhase({ state, bytesTotal, bytesLeft }: migratefs.data.Phase): boolean {
    this.#received.announced(bytesTotal, bytesLeft);
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
    if (next === 'mirroring') this.#gate.onInSync();
    return true;
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
    this.#stream.close();
    if (this.#state !== 'cutover') this.#transitionTo('cutover');
    this.#taking ??= this.#take(generations).finally(() => {
      this.#taking = undefined;
    });
  }

  /** Makes the images this host's own; on an error everything stays as it was, and the source may offer again. */
  async #take(generations: readonly number[]): Promise<void> {
    const { log, clock } = this.#context;
    const began = clock.now();
    try {
      await this.#stream.ended;
      await takeOwnership(this.#context, this.terms, this.images, generations);
    } catch (error) {
      log('error', 'cannot take the images over', { migration: this.id, error: (error as Error).message });
      this.#reception?.connection.send({ failure: failureFor(error) });
      return;
    }
    // Held writes come first: what a guest writes from now on must not be overtaken by what it wrote before.
    this.#cutoverStall = this.#gate.open();
    this.#received.complete();
    this.#transitionTo('completed');
    this.#reception?.connection.send({ cutoverTaken: {} });
    log('info', 'took the images over', {
      migration: this.id,
      milliseconds: clock.now() - began,
      stall: this.#cutoverStall,
    });
    this.#pins.handOver();
  }

  async #onDiscard(): Promise<void> {
    const connection = this.#reception?.connection;
    try {
      await this.discard();
      connection?.send({ discarded: {} });
    } catch (error) {
      connection?.send({ failure: failureFor(error) });
    }
  }

  #onSourceFailed(failure: migratefs.data.Failure): void {
    this.#sourceFailure = { code: failure.code as PlainError['code'], message: failure.message };
    this.#context.log('warn', 'the source has failed', { migration: this.id, error: failure.message });
  }

  #onChangeFailed(failure: PlainError): void {
    this.#context.log('error', 'a change did not take effect on the replica', { error: failure.message });
    this.#reception?.connection.send({ ack: { seqs: [], failure } });
  }

  #onStreamRejected(reason: string): void {
    const connection = this.#reception?.connection;
    if (!connection) return;
    this.#context.log('warn', 'stream closed: unacceptable record', {
      peer: connection.remote,
      error: reason,
    });
    connection.close(new MigrateFsError('UNAVAILABLE', `the stream broke: ${reason}`));
  }

  #onLost(reason: MigrateFsError): void {
    this.#stream.close();
    this.#ahead.stop();
    this.#reception = undefined;
    this.#gate.setConnected(false);
    if (isFinal(this.#state) || this.#state === 'interrupted') return;
    if (this.#state === 'preparing') this.#giveUp(reason);
    else this.#interrupt(reason);
  }

  /** The source left before it began: it does not know that it was accepted, so nobody would ever come back. */
  #giveUp(reason: MigrateFsError): void {
    this.#transitionTo('cancelled', plainError(reason));
    this.#remove();
  }

  #interrupt(reason = new MigrateFsError('UNAVAILABLE', 'the source connected anew')): void {
    if (reason.code === 'UNAVAILABLE') this.#gate.onBreak();
    this.#transitionTo('interrupted', plainError(reason));
  }

  #drop(): void {
    const reception = this.#reception;
    this.#stream.close();
    this.#ahead.stop();
    this.#reception = undefined;
    this.#gate.setConnected(false);
    reception?.connection.close();
  }

  /** Whether frames may touch the images; what a source still sends after a cancellation is dropped. */
  #admits(): boolean {
    if (this.#offered || this.#state === 'completed')
      throw new MigrateFsError('FAILED_PRECONDITION', `migration ${this.id}: the target owns the images`);
    return !isFinal(this.#state);
  }

  get #admissible(): boolean {
    return !this.#offered && !isFinal(this.#state);
  }

  /** The images, with what the stream has brought counted. */
  #counted(): readonly TargetImage[] {
    this.#stream.count();
    return this.images;
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

  #remove(): void {
    this.#stream.close();
    this.#gate.refuseAll();
    this.#pins.remove();
  }
}
