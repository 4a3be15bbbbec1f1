import assert from 'node:assert/strict';
import { pause } from '../../leaves/clock.js';
import type { PlainError } from '../../leaves/errors.js';
import { MigrateFsError, plainError } from '../../leaves/errors.js';
import type {
  LimitChange,
  LimitSetter,
  MigrationRequest,
  MigrationSnapshot,
  MigrationState,
  VerifyReport,
} from '../../leaves/migration.js';
import { isFinal, MIGRATION_EDGES } from '../../leaves/migration.js';
import type { Bytes, Millis } from '../../leaves/units.js';
import { millis } from '../../leaves/units.js';
import type { migratefs } from '../wire/generated/data.js';
import type { PeerConnection } from '../wire/peer-connection.js';
import { fenceDurably, flushAhead, nextGenerations, restoreRecords } from './cutover.js';
import { CutoverRequests } from './cutover-requests.js';
import { discardReplicas } from './discard.js';
import type { SourceEnvironment } from './environment.js';
import { ImageGroup } from './image-group.js';
import { Latch } from './latch.js';
import { Limits } from './limits.js';
import { LoadObserver } from './load-observer.js';
import { Pacing } from './pacing.js';
import { Progress } from './progress.js';
import { reconnect } from './resume.js';
import { describeTransfer } from './snapshot.js';
import type { SourceImage } from './source-image.js';
import { SourceWire } from './source-wire.js';
import { Verification } from './verification.js';

/** Between two looks at what was written and became dirty. */
const SAMPLE_INTERVAL = millis(250);
const SAMPLES_PER_REPORT = 2;
/** A guest never waits longer than this (and a tick) for a target whose disk hangs. */
const MIRROR_ACK_MAX = millis(10_000);
const OFFER_INTERVAL = millis(1_000);

type Hello = migratefs.data.Hello.$Properties;
/** How it is to end, decided while something else may still be under way. */
interface Ending {
  readonly state: 'cancelled' | 'failed';
  readonly error?: PlainError;
}

const NOT_OFFERED: PlainError = {
  code: 'DATA_LOSS',
  message: 'the target took images that it was not offered',
};

/**
 * The source of one migration: a group of images that becomes in sync and cuts over together.
 *
 * One driver runs one stage at a time (copying, waiting, reconnecting, ending). Whoever wants something else sets what
 * is wanted and aborts the stage; the driver then picks the next one by what is wanted and what is there.
 */
export class SourceMigration {
  readonly id: string;
  readonly request: MigrationRequest;
  readonly wire: SourceWire;
  readonly group: ImageGroup;
  readonly progress: Progress;
  readonly observer: LoadObserver;
  readonly pacing: Pacing;
  readonly limits: Limits;
  /** Resolves when its images belong to nobody here any more. */
  readonly released: Promise<void>;
  readonly #environment: SourceEnvironment;
  readonly #hello: Hello;
  readonly #latch = new Latch();
  readonly #cutover: CutoverRequests;
  readonly #verification: Verification;
  readonly #stopping = new AbortController();
  readonly startedAt: Millis;
  #state: MigrationState = 'preparing';
  /** What is reported from then on. */
  #endSnapshot: MigrationSnapshot | undefined;
  /** What the target is told before the source enters it itself. */
  #announced: MigrationState | undefined;
  #error: PlainError | undefined;
  #endedAt: Millis | undefined;
  #stage = new AbortController();
  #ending: Ending | undefined;
  #pauseWanted = false;
  /** The target may own the images: never unfence from here on. */
  #offered = false;
  #taken = false;
  #bulkDone = false;
  #compareDigests = false;
  #ticks = 0;
  #idled: Promise<void> | undefined;
  /** The connection when it ended: the first that is asked to discard. */
  #detached: PeerConnection | null = null;
  /** Resolves in a final state. */
  readonly #final: Promise<void>;
  #resolveFinal!: () => void;
  #resolveReleased!: () => void;

  constructor(environment: SourceEnvironment, id: string, request: MigrationRequest, hello: Hello) {
    this.#environment = environment;
    this.id = id;
    this.request = request;
    this.#hello = hello;
    const { clock } = environment;
    this.startedAt = clock.wall();
    this.#cutover = new CutoverRequests(clock, this.#latch);
    this.progress = new Progress(clock);
    this.limits = new Limits(clock, request);
    this.pacing = new Pacing(this.limits.net, environment.hostBucket);
    this.wire = new SourceWire(clock, {
      cutoverRequested: () => this.#onCutoverRequested(),
      cutoverTaken: () => this.#onTaken(),
      failed: (error) => this.#onTargetFailed(error),
    });
    const { wire, progress, pacing } = this;
    const { priority } = request;
    this.group = new ImageGroup({ environment, wire, progress, pacing, latch: this.#latch, priority });
    this.observer = new LoadObserver(clock, this.group, progress);
    this.#verification = new Verification({
      group: this.group,
      wire,
      buffers: environment.buffers,
      target: request.target,
    });
    this.released = new Promise((resolve) => {
      this.#resolveReleased = resolve;
    });
    this.#final = new Promise((resolve) => {
      this.#resolveFinal = resolve;
    });
  }

  /** Allocated when it began. */
  get bytesTotal(): Bytes {
    return this.group.allocated;
  }

  get state(): MigrationState {
    return this.#state;
  }

  /** The hello was accepted on `connection` and the wire is attached to it; the images are tracked. */
  begin(images: readonly SourceImage[], connection: PeerConnection, adopted: boolean): void {
    this.group.images.push(...images);
    // The replicas hold what an earlier migration has copied: a comparison finds what is left to send.
    this.#compareDigests = adopted;
    this.#bulkDone = adopted;
    this.#watch(connection);
    // Ended between the target's answer and now, when there was nothing to end yet.
    if (this.#ending) this.#idle();
    else this.#transitionTo('bulk-copy');
    this.#tick();
    void this.#drive();
  }

  /** It never began. */
  abandon(): void {
    this.#resolveReleased();
  }

  /** A copied extent was settled. */
  onSettled(amount: number): void {
    this.group.window.give(amount);
    this.#latch.notify();
  }

  onProgress(): void {
    this.#latch.notify();
  }

  // ---- what operators and the broker ask for

  setLimits(change: LimitChange, by: LimitSetter): void {
    this.#assertNotFinal();
    const { diskLimited } = this.limits;
    this.limits.change(change, by);
    if (this.limits.diskLimited === diskLimited) return;
    const tracked = !this.group.converging && !this.#offered && this.#ending === undefined;
    if (tracked) this.group.unroute(this.limits.diskLimited);
  }

  pause(): void {
    if (this.#state === 'paused') return;
    if (!['bulk-copy', 'dirty-resend', 'mirroring', 'interrupted'].includes(this.#state) || this.#offered)
      throw this.#precondition('pause');
    this.#pauseWanted = true;
    this.#verification.stop(`migration ${this.id} was paused`);
    this.#cutover.reject(new MigrateFsError('ABORTED', `migration ${this.id} was paused`));
    if (this.#state !== 'interrupted') {
      this.group.unroute(this.limits.diskLimited);
      this.#transitionTo('paused');
    }
    this.#changeStage();
  }

  resume(): void {
    if (!this.#pauseWanted) throw this.#precondition('resume');
    this.#pauseWanted = false;
    this.#changeStage();
  }

  /** Resolves once the images are as if nothing had happened; the target is told in the background. */
  async cancel(): Promise<void> {
    if (this.#state === 'cancelled') return;
    if (this.#offered && this.#state !== 'completed')
      throw new MigrateFsError(
        'FAILED_PRECONDITION',
        `migration ${this.id} is past the point of no return: the images were offered to ${this.request.target}, which may own them; bring that host back and it completes`,
      );
    if (isFinal(this.#state)) throw this.#precondition('cancel');
    this.#end({ state: 'cancelled' });
    await this.#final;
  }

  /** Resolves when the target owns the images. */
  cutover(): Promise<void> {
    if (this.#state !== 'mirroring' && this.#state !== 'cutover') {
      return Promise.reject(this.#precondition('cut over'));
    }
    return this.#cutover.ask();
  }

  async verify(name?: string): Promise<readonly VerifyReport[]> {
    if (this.#state !== 'mirroring') throw this.#precondition('verify');
    return this.#verification.run(name);
  }

  /** The daemon stops: guests are answered, images are left idle (or fenced, once offered). Nothing is discarded. */
  async shutdown(): Promise<void> {
    this.#stopping.abort(new MigrateFsError('UNAVAILABLE', 'the daemon is stopping'));
    if (isFinal(this.#state)) return;
    this.#verification.stop('the daemon is stopping', 'UNAVAILABLE');
    if (!this.#offered) this.group.idle();
    this.wire.detach()?.close();
    this.#stage.abort(new Error('the daemon is stopping'));
    await this.#environment.grace.elapsed(this.group.slots, this.#environment.turn);
  }

  snapshot(): MigrationSnapshot {
    if (this.#endSnapshot) return this.#endSnapshot;
    return {
      ...describeTransfer(this),
      ...(this.#endedAt === undefined ? {} : { endedAt: this.#endedAt }),
      ...(this.#error ? { error: this.#error } : {}),
      ...(this.#cutover.stall === undefined ? {} : { cutoverStall: this.#cutover.stall }),
    };
  }

  // ---- the driver

  async #drive(): Promise<void> {
    while (!isFinal(this.#state) && !this.#stopping.signal.aborted) {
      const stage = new AbortController();
      this.#stage = stage;
      try {
        await this.#nextStage()(stage.signal);
      } catch (error) {
        if (!stage.signal.aborted) await this.#onDefect(error);
      }
    }
  }

  /** A stage failed by itself. Once the images are offered there is no other way than on. */
  async #onDefect(error: unknown): Promise<void> {
    this.#end({ state: 'failed', error: plainError(error) });
    if (this.#ending) return;
    this.#log('error', 'cannot go on; trying again', { ...plainError(error) });
    await pause(this.#environment.clock, OFFER_INTERVAL, this.#stopping.signal).catch(() => {});
  }

  #nextStage(): (signal: AbortSignal) => Promise<void> {
    if (this.#ending) return () => this.#finish(this.#ending!);
    if (this.#taken) return () => this.#complete();
    if (!this.wire.open) return (signal) => this.#reconnect(signal);
    if (this.#offered) return (signal) => this.#awaitTaken(signal);
    if (this.#pauseWanted) return (signal) => this.#rest(signal);
    return (signal) => this.#work(signal);
  }

  #changeStage(): void {
    this.#stage.abort(new Error('something else is wanted'));
  }

  async #rest(signal: AbortSignal): Promise<void> {
    if (this.#state !== 'paused') this.#transitionTo('paused');
    for (;;) await this.#latch.changed(signal);
  }

  async #work(signal: AbortSignal): Promise<void> {
    const { group, progress } = this;
    if (this.#compareDigests) await this.#compare(signal);
    if (!this.#bulkDone) {
      this.#transitionTo('bulk-copy');
      await group.copyAll(signal);
      this.#bulkDone = true;
    }
    this.#transitionTo('dirty-resend');
    progress.beginResend();
    await group.shrink(signal);
    this.#log('info', 'converging', { left: group.left });
    await group.converge(signal);
    for (;;) {
      await group.copyRest(signal);
      for (const image of group.images) image.sendSize(true);
      for (const image of group.images) assert.equal(image.bitmap.recount(), 0, 'dirty although in sync');
      group.assertTracked();
      await this.#flushAhead(signal);
      if (!(await this.#announceMirroring(signal))) continue;
      this.#transitionTo('mirroring');
      if (this.request.cutover === 'when-in-sync') this.#cutover.want();
      while (group.clean && !this.#cutover.wanted) await this.#latch.changed(signal);
      signal.throwIfAborted();
      if (group.clean && (await this.#cutOver(signal))) return;
      if (!group.clean) this.#transitionTo('dirty-resend');
    }
  }

  /** A target that cannot is lost: it is connected again. */
  async #flushAhead(signal: AbortSignal): Promise<void> {
    try {
      await flushAhead(this.group, this.wire, this.#environment, signal);
    } catch (error) {
      signal.throwIfAborted();
      if (!(error instanceof MigrateFsError) || error.code !== 'UNAVAILABLE') throw error;
      this.wire.drop(error);
      for (;;) await this.#latch.changed(signal);
    }
  }

  /**
   * The target is in sync before this side says so: whoever resumes a guest there because of what is reported here must
   * find it ready for the first write. False: not in sync any more.
   */
  async #announceMirroring(signal: AbortSignal): Promise<boolean> {
    this.#announced = 'mirroring';
    try {
      await this.wire.confirmed(this.#phase);
    } finally {
      this.#announced = undefined;
    }
    signal.throwIfAborted();
    if (this.group.clean) return true;
    this.#tellPhase();
    return false;
  }

  async #compare(signal: AbortSignal): Promise<void> {
    this.#transitionTo(this.#bulkDone ? 'dirty-resend' : 'bulk-copy');
    const differs = await this.group.compare(signal);
    this.#log('info', 'compared with the target by digests', { differs });
    this.#compareDigests = false;
  }

  /** True: the images are offered. False: given back, still in sync. */
  async #cutOver(signal: AbortSignal): Promise<boolean> {
    const { group, wire } = this;
    this.#transitionTo('cutover');
    this.#verification.stop(`migration ${this.id} cuts over`);
    try {
      await fenceDurably(group, wire, this.#environment, { id: this.id, peer: this.request.target }, signal);
    } catch (error) {
      signal.throwIfAborted();
      const reason = error instanceof MigrateFsError ? error : new MigrateFsError('INTERNAL', String(error));
      this.#log('error', 'cutover given up; the source goes on', { error: reason.message });
      this.#cutover.reject(reason);
      if (reason.code === 'UNAVAILABLE') wire.drop(reason);
      else if (reason.code !== 'ABORTED') this.#end({ state: 'failed', error: plainError(reason) });
      signal.throwIfAborted();
      group.unfence();
      this.#transitionTo('mirroring');
      return false;
    }
    this.#offered = true;
    group.seal();
    this.#offer();
    return true;
  }

  #offer(): void {
    this.wire.tell({ cutoverOffer: { generations: nextGenerations(this.group.images) } });
  }

  /** The target had given the migration up before it saw the offer, so it never owned the images and never will. */
  #takeBack(): void {
    restoreRecords(this.group.images);
    this.#offered = false;
    this.#log('warn', 'the target does not take the images: given back to their writers', {});
  }

  /** The target could not persist its ownership; only it can say that it has. */
  #offerLater(error: MigrateFsError): void {
    this.#error = plainError(error);
    this.#log('error', 'the target could not take the images; offering again', { error: error.message });
    this.#environment.clock.after(OFFER_INTERVAL, () => {
      if (!this.#taken && this.#state === 'cutover') this.#offer();
    });
  }

  async #awaitTaken(signal: AbortSignal): Promise<void> {
    if (this.#state !== 'cutover') {
      this.#transitionTo('cutover');
      this.#offer();
    }
    for (;;) await this.#latch.changed(signal);
  }

  async #complete(): Promise<void> {
    this.#cutover.measure();
    this.wire.detach()?.close();
    await this.#release();
    this.#transitionTo('completed');
    this.#cutover.resolve();
  }

  async #finish({ state, error }: Ending): Promise<void> {
    await this.#idled;
    if (error) this.#error = error;
    await this.#release();
    const connection = this.#detached;
    this.#transitionTo(state);
    this.#cutover.reject(
      new MigrateFsError(error?.code ?? 'CANCELLED', error?.message ?? 'the migration was cancelled'),
    );
    void discardReplicas(
      this.#environment,
      connection,
      this.request.target,
      this.#hello,
      this.#stopping.signal,
    );
  }

  /** Ends it: writers are served as if nothing had happened from this moment on. */
  #end(ending: Ending): void {
    if (this.#ending || this.#offered || isFinal(this.#state)) return;
    this.#ending = ending;
    this.#verification.stop(`migration ${this.id} is over (${ending.state})`);
    if (ending.error) this.#log('error', 'migration failed', { ...ending.error });
    this.#idle();
    this.#detached = this.wire.detach();
    this.#changeStage();
  }

  #idle(): void {
    this.group.idle();
    const { grace, turn } = this.#environment;
    this.#idled = grace.elapsed(this.group.slots, turn, this.#stopping.signal).catch(() => {});
  }

  async #release(): Promise<void> {
    this.#resolveReleased();
    await this.group.unused();
    for (const image of this.group.images) {
      image.close();
      await this.#environment.store.release(image.pinned.slot, false).catch((error: Error) => {
        this.#log('error', 'cannot release an image', { image: image.name, error: error.message });
      });
    }
  }

  // ---- the connection

  async #reconnect(signal: AbortSignal): Promise<void> {
    const { connection, resumption } = await reconnect({
      environment: this.#environment,
      wire: this.wire,
      target: this.request.target,
      hello: this.#hello,
      patient: ({ code }) => this.#offered && code !== 'CANCELLED',
      onError: (error) => {
        this.#error = plainError(error);
      },
      signal,
    });
    if (resumption.kind === 'given-up') {
      const error = plainError(resumption.error);
      if (this.#offered) this.#takeBack();
      this.#end({ state: error.code === 'CANCELLED' ? 'cancelled' : 'failed', error });
      return;
    }
    this.#watch(connection);
    this.#error = undefined;
    // A comparison that was broken off is still owed, whatever the target remembers since.
    if (!resumption.remembers) this.#compareDigests = true;
    this.#log('info', 'connected again', { remembers: resumption.remembers, taken: resumption.taken });
    if (resumption.taken && this.#offered) this.#taken = true;
    else if (resumption.taken) this.#end({ state: 'failed', error: NOT_OFFERED });
  }

  #watch(connection: PeerConnection): void {
    void connection.closed.then((reason) => this.#onLost(connection, reason));
  }

  #onLost(connection: PeerConnection, reason: MigrateFsError): void {
    if (!this.wire.isOver(connection)) return;
    this.#verification.stop(`${this.request.target} was lost`, 'UNAVAILABLE');
    if (!this.#offered) this.group.unroute(this.limits.diskLimited);
    this.wire.detach();
    if (isFinal(this.#state) || this.#ending || this.#taken || this.#stopping.signal.aborted) return;
    this.#error = plainError(reason);
    this.#transitionTo('interrupted');
    this.#cutover.reject(
      new MigrateFsError(
        'UNAVAILABLE',
        this.#offered
          ? `${reason.message}; the images were offered to the target and stay fenced here until it answers`
          : `${reason.message}; the source goes on and resumes the migration`,
      ),
    );
    this.#changeStage();
  }

  // ---- what the target says

  #onCutoverRequested(): void {
    const inSync = [this.#state, this.#announced].includes('mirroring');
    if (inSync || this.#state === 'cutover') this.#cutover.want();
    else this.#log('warn', 'the target asked for the images too early', { state: this.#state });
  }

  #onTaken(): void {
    if (!this.#offered || this.#taken) return;
    this.#taken = true;
    this.#changeStage();
  }

  #onTargetFailed(error: MigrateFsError): void {
    if (this.#taken) return;
    if (this.#offered && error.code !== 'CANCELLED') {
      this.#offerLater(error);
      return;
    }
    try {
      if (this.#offered) this.#takeBack();
    } catch (cause) {
      // The target closes the connection next, and says it again when it is resumed.
      this.#log('error', 'cannot take the images back', { ...plainError(cause) });
      return;
    }
    this.#end({ state: error.code === 'CANCELLED' ? 'cancelled' : 'failed', error: plainError(error) });
  }

  // ---- small things

  #precondition(what: string): MigrateFsError {
    return new MigrateFsError(
      'FAILED_PRECONDITION',
      `cannot ${what} migration ${this.id}: it is ${this.#offered && !isFinal(this.#state) ? 'cutting over' : this.#state}`,
    );
  }

  #assertNotFinal(): void {
    if (isFinal(this.#state)) throw this.#precondition('change the limits of');
  }

  /** The only place where the state changes. */
  #transitionTo(next: MigrationState): void {
    if (next === this.#state) return;
    assert(MIGRATION_EDGES[this.#state].includes(next), `${this.#state} -> ${next}`);
    this.#log('info', 'migration state', { from: this.#state, to: next });
    this.#state = next;
    if (isFinal(next)) this.#endedAt = this.#environment.clock.wall();
    this.#tellPhase();
    this.#environment.publish(this.snapshot());
    if (!isFinal(next)) return;
    // It is listed for long; its images and their bitmaps go.
    this.#endSnapshot = { ...this.snapshot(), netRate: 0, writeRate: 0, dirtyRate: 0 };
    this.group.forget();
    this.#resolveFinal();
  }

  get #phase(): { phase: migratefs.data.Phase.$Properties } {
    const state = this.#announced ?? this.#state;
    return { phase: { state, bytesTotal: this.bytesTotal, bytesLeft: this.group.left } };
  }

  #tellPhase(): void {
    this.wire.tell(this.#phase);
  }

  #tick(): void {
    this.#environment.clock.after(SAMPLE_INTERVAL, () => {
      if (isFinal(this.#state) || this.#stopping.signal.aborted) return;
      this.observer.sample();
      this.#ticks++;
      try {
        this.group.assertTracked();
      } catch (error) {
        this.#end({ state: 'failed', error: plainError(error) });
      }
      if (this.wire.stalled > MIRROR_ACK_MAX)
        this.wire.drop(
          new MigrateFsError(
            'UNAVAILABLE',
            `${this.request.target} acknowledged nothing for ${MIRROR_ACK_MAX / 1000} s while a guest waited`,
          ),
        );
      if (this.#ticks % SAMPLES_PER_REPORT === 0) {
        this.#tellPhase();
        this.#environment.publish(this.snapshot());
      }
      this.#tick();
    });
  }

  #log(level: 'info' | 'warn' | 'error', message: string, fields: object): void {
    this.#environment.log(level, message, { migration: this.id, ...fields });
  }
}
