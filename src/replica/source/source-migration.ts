import { MigrateFsError, plainError } from '../../leaves/errors.js';
import type {
  LimitChange,
  LimitSetter,
  MigrationRequest,
  MigrationSnapshot,
  MigrationState,
  VerifyReport,
} from '../../leaves/migration.js';
import type { Bytes, Millis } from '../../leaves/units.js';
import type { migratefs } from '../wire/generated/data.js';
import type { PeerConnection } from '../wire/peer-connection.js';
import { CopyPhases } from './copy-phases.js';
import { CutoverRequests } from './cutover-requests.js';
import { Driver } from './driver.js';
import { Ending } from './ending.js';
import type { Log, SourceEnvironment } from './environment.js';
import { ImageGroup } from './image-group.js';
import { Latch } from './latch.js';
import { Limits } from './limits.js';
import { LoadObserver } from './load-observer.js';
import { MigrationStatus } from './migration-status.js';
import { Offer } from './offer.js';
import { Pacing } from './pacing.js';
import { Progress } from './progress.js';
import { describeTransfer } from './snapshot.js';
import type { SourceImage } from './source-image.js';
import { SourceWire } from './source-wire.js';
import type { StreamOpening } from './stream-opening.js';
import { openStreamBeside } from './stream-opening.js';
import { supervise } from './supervision.js';
import { Verification } from './verification.js';

type Hello = migratefs.data.Hello.$Properties;

/** `paused`: resumed, and not under way yet. */
const PAUSABLE: readonly MigrationState[] = [
  'bulk-copy',
  'dirty-resend',
  'mirroring',
  'interrupted',
  'paused',
];

/** What the target answered to the hello. */
export interface Introduction {
  readonly connection: PeerConnection;
  /** The replicas are those of an earlier migration. */
  readonly adopted: boolean;
  /** The run of its daemon that answered. */
  readonly instance: string;
}

/**
 * The source of one migration: a group of images that becomes in sync and cuts over together.
 * What operators and the target want of it comes in here; the driver does it.
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
  readonly startedAt: Millis;
  readonly #environment: SourceEnvironment;
  readonly #log: Log;
  readonly #latch = new Latch();
  readonly #status: MigrationStatus;
  readonly #phases: CopyPhases;
  readonly #ending: Ending;
  readonly #driver: Driver;
  readonly #cutover: CutoverRequests;
  readonly #offer: Offer;
  readonly #verification: Verification;
  readonly #streamOpening: StreamOpening;
  readonly #stopping = new AbortController();

  constructor(environment: SourceEnvironment, id: string, request: MigrationRequest, hello: Hello) {
    this.#environment = environment;
    this.id = id;
    this.request = request;
    const { clock, publish } = environment;
    const { target, priority } = request;
    const log: Log = (level, message, fields) =>
      environment.log(level, message, { migration: id, ...fields });
    const latch = this.#latch;
    this.#log = log;
    this.startedAt = clock.wall();
    this.progress = new Progress(clock);
    this.limits = new Limits(clock, request);
    this.pacing = new Pacing(this.limits.net, environment.hostBucket);
    this.wire = new SourceWire(clock, {
      cutoverRequested: () => this.#onCutoverRequested(),
      cutoverTaken: () => this.#onTaken(),
      failed: (error) => this.#onTargetFailed(error),
    });
    const { wire, progress, pacing } = this;
    const limited = (): boolean => Number.isFinite(pacing.rate) || this.limits.diskLimited;
    const group = new ImageGroup({ environment, wire, progress, pacing, latch, priority, limited });
    this.group = group;
    this.observer = new LoadObserver(clock, group, progress);
    const status = new MigrationStatus({
      clock,
      wire,
      group,
      log,
      describe: () => this.#describe(),
      publish,
    });
    this.#status = status;
    const phases = new CopyPhases({ environment, group, wire, progress, status, latch, log });
    this.#phases = phases;
    const requests = new CutoverRequests(clock, latch);
    this.#cutover = requests;
    const verification = new Verification({ group, wire, buffers: environment.buffers, target });
    this.#verification = verification;
    const offer = new Offer({ environment, group, wire, status, requests, verification, id, target, log });
    this.#offer = offer;
    const stopping = this.#stopping.signal;
    const shared = { environment, group, wire, status, offer, requests, verification, hello, log, stopping };
    const ending = new Ending({ ...shared, id, target });
    this.#ending = ending;
    const streamOpening = { environment, wire, group, target, migrationId: id, log };
    this.#streamOpening = streamOpening;
    const { limits } = this;
    this.#driver = new Driver({ ...shared, request, limits, phases, ending, latch, streamOpening });
  }

  /** Resolves when its images belong to nobody here any more. */
  get released(): Promise<void> {
    return this.#ending.released;
  }

  /** Allocated when it began. */
  get bytesTotal(): Bytes {
    return this.group.allocated;
  }

  get state(): MigrationState {
    return this.#status.state;
  }

  /** The hello was accepted and the wire is attached to the connection; the images are tracked. */
  begin(images: readonly SourceImage[], { connection, adopted, instance }: Introduction): void {
    this.group.images.push(...images);
    if (adopted) this.#phases.adopt();
    // Ended between the target's answer and now, when there was nothing to end yet.
    if (this.#ending.decided) this.#ending.idle();
    else this.#status.transitionTo('bulk-copy');
    this.#supervise();
    this.#driver.begin(connection, instance);
  }

  /** Beside a connection that the wire is attached to; see `openStreamBeside`. */
  openStream(connection: PeerConnection, token: Uint8Array | undefined, signal: AbortSignal): Promise<void> {
    return openStreamBeside(connection, token, this.#streamOpening, signal);
  }

  /** It never began. */
  abandon(): void {
    this.#ending.disown();
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
    if (this.#status.isFinal) throw this.#precondition('change the limits of');
    const { diskLimited } = this.limits;
    this.limits.change(change, by);
    if (this.group.limited) void this.group.fast.leave();
    this.#latch.notify();
    if (this.limits.diskLimited === diskLimited) return;
    const tracked = !this.group.converging && !this.#offer.made && !this.#ending.decided;
    if (tracked) this.group.unroute(this.limits.diskLimited);
  }

  pause(): void {
    if (this.state === 'paused' && this.#driver.pauseWanted) return;
    if (!PAUSABLE.includes(this.state) || this.#offer.made || this.#ending.decided)
      throw this.#precondition('pause');
    this.#verification.stop(`migration ${this.id} was paused`);
    this.#cutover.reject(new MigrateFsError('ABORTED', `migration ${this.id} was paused`));
    this.#driver.pause();
  }

  resume(): void {
    if (!this.#driver.pauseWanted) throw this.#precondition('resume');
    this.#driver.resume();
  }

  /**
   * Resolves once the images are as if nothing had happened; the target is told in the background. `takeBack`: also when they
   * were offered to a target that is not there to answer. Errors then: what writing a record threw; they stay offered.
   */
  async cancel(takeBack = false): Promise<void> {
    if (this.state === 'cancelled') return;
    if (this.#offer.made && this.state !== 'completed') this.#takeBack(takeBack);
    if (this.#status.isFinal) throw this.#precondition('cancel');
    this.#driver.end('cancelled');
    await this.#status.ended;
  }

  /** FAILED_PRECONDITION: it is not wanted, or the target can answer for itself. */
  #takeBack(wanted: boolean): void {
    const { target } = this.request;
    const gone = this.state === 'interrupted' && !this.wire.open && !this.#offer.taken;
    if (!wanted || !gone) {
      const remedy = wanted
        ? 'it is connected, and answers for itself'
        : 'bring that host back and it completes. Where it is certain that it does not have them and never will (its disk is ' +
          `lost, or it was cancelled there): migratefs cancel ${this.id} --take-back`;
      throw new MigrateFsError(
        'FAILED_PRECONDITION',
        `migration ${this.id} is past the point of no return: the images were offered to ${target}, which may own them; ${remedy}`,
      );
    }
    this.#offer.takeBack(`an operator says that ${target} does not have the images`);
  }

  /** Resolves when the target owns the images. */
  cutover(): Promise<void> {
    if (this.state !== 'mirroring' && this.state !== 'cutover') {
      return Promise.reject(this.#precondition('cut over', this.#wayToSync));
    }
    return this.#cutover.ask();
  }

  async verify(name?: string): Promise<readonly VerifyReport[]> {
    const assertInSync = (): void => {
      if (this.state !== 'mirroring' || this.#ending.decided)
        throw this.#precondition('verify', this.#wayToSync);
    };
    assertInSync();
    return this.group.fast.without(() => {
      // Paused, or cutting over, while the lane was left.
      assertInSync();
      return this.#verification.run(name);
    });
  }

  /** The daemon stops: guests are answered, images are left idle (or fenced, once offered). Nothing is discarded. */
  async shutdown(): Promise<void> {
    this.#stopping.abort(new MigrateFsError('UNAVAILABLE', 'the daemon is stopping'));
    if (this.#status.isFinal) return;
    this.#verification.stop('the daemon is stopping', 'UNAVAILABLE');
    if (this.#offer.made) this.#offer.refuse();
    else this.group.idle();
    const streamEnded = this.wire.stream?.ended;
    this.wire.detach()?.close();
    this.#driver.proceed();
    await this.#environment.grace.elapsed(this.group.slots, this.#environment.turn);
    await streamEnded;
  }

  snapshot(): MigrationSnapshot {
    return this.#status.snapshot();
  }

  #describe(): MigrationSnapshot {
    return {
      ...describeTransfer(this),
      ...(this.#cutover.stall === undefined ? {} : { cutoverStall: this.#cutover.stall }),
    };
  }

  // ---- what the target says

  #onCutoverRequested(): void {
    if (this.#status.inSync || this.state === 'cutover') this.#cutover.want();
    else this.#log('warn', 'the target asked for the images too early', { state: this.state });
  }

  #onTaken(): void {
    if (this.#offer.accept()) this.#driver.proceed();
  }

  #onTargetFailed(error: MigrateFsError): void {
    if (this.#offer.taken) return;
    if (this.#offer.made && error.code !== 'CANCELLED') {
      this.#offer.sendLater(error);
      return;
    }
    try {
      if (this.#offer.made) this.#offer.takeBack(error.message);
    } catch (cause) {
      // The target closes the connection next, and says it again when it is resumed.
      this.#log('error', 'cannot take the images back', { ...plainError(cause) });
      return;
    }
    this.#driver.end(error.code === 'CANCELLED' ? 'cancelled' : 'failed', plainError(error));
  }

  /** What to do until both sides are in sync; empty where that is over. */
  get #wayToSync(): string {
    if (this.#status.isFinal || this.#offer.made || this.state === 'cutover') return '';
    const { id } = this;
    return this.state === 'paused'
      ? `: migratefs resume ${id}, then wait until it is mirroring`
      : `: wait until it is mirroring (migratefs status ${id})`;
  }

  get #standing(): string {
    if (this.#status.isFinal) return this.state;
    if (this.#offer.made) return 'cutting over';
    return this.#ending.decided ? 'ending' : this.state;
  }

  #precondition(what: string, remedy = ''): MigrateFsError {
    return new MigrateFsError(
      'FAILED_PRECONDITION',
      `cannot ${what} migration ${this.id}: it is ${this.#standing}${remedy}`,
    );
  }

  #supervise(): void {
    const { group, wire, observer, request } = this;
    supervise({
      clock: this.#environment.clock,
      group,
      wire,
      observer,
      status: this.#status,
      target: request.target,
      failed: (error) => this.#driver.end('failed', plainError(error)),
      signal: this.#stopping.signal,
    });
  }
}
