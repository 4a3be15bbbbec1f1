import { pause } from '../../leaves/clock.js';
import type { PlainError } from '../../leaves/errors.js';
import { MigrateFsError, plainError } from '../../leaves/errors.js';
import type { MigrationRequest } from '../../leaves/migration.js';
import type { migratefs } from '../wire/generated/data.js';
import type { PeerConnection } from '../wire/peer-connection.js';
import type { CopyPhases } from './copy-phases.js';
import type { CutoverRequests } from './cutover-requests.js';
import type { Ending } from './ending.js';
import type { Log, SourceEnvironment } from './environment.js';
import type { ImageGroup } from './image-group.js';
import type { Latch } from './latch.js';
import type { Limits } from './limits.js';
import type { MigrationStatus } from './migration-status.js';
import type { Offer } from './offer.js';
import { OFFER_INTERVAL } from './offer.js';
import { reconnect } from './resume.js';
import type { SourceWire } from './source-wire.js';
import type { StreamOpening } from './stream-opening.js';
import { openStreamBeside } from './stream-opening.js';
import type { Verification } from './verification.js';

const NOT_OFFERED: PlainError = {
  code: 'DATA_LOSS',
  message: 'the target took images that it was not offered',
};

export interface DriverOptions {
  readonly environment: SourceEnvironment;
  readonly request: MigrationRequest;
  readonly hello: migratefs.data.Hello.$Properties;
  readonly group: ImageGroup;
  readonly wire: SourceWire;
  readonly limits: Limits;
  readonly status: MigrationStatus;
  readonly phases: CopyPhases;
  readonly offer: Offer;
  readonly requests: CutoverRequests;
  readonly verification: Verification;
  readonly ending: Ending;
  readonly latch: Latch;
  readonly streamOpening: StreamOpening;
  readonly log: Log;
  /** The daemon stops. */
  readonly stopping: AbortSignal;
}

/**
 * Takes a migration from one stage to the next (copying, waiting, reconnecting, ending), one at a time. Whoever wants
 * something else sets what is wanted and has the stage aborted; the next one follows from what is wanted and what is
 * there.
 */
export class Driver {
  readonly #options: DriverOptions;
  #stage = new AbortController();
  #pauseWanted = false;
  /** The run of the target's daemon that has, or compared, all that was acknowledged. */
  #instance = '';

  constructor(options: DriverOptions) {
    this.#options = options;
  }

  get pauseWanted(): boolean {
    return this.#pauseWanted;
  }

  /** Over a connection that the wire is attached to, with that run of the target's daemon. */
  begin(connection: PeerConnection, instance: string): void {
    this.#instance = instance;
    this.#watch(connection);
    void this.#drive();
  }

  /** Aborts the stage: something else is wanted. */
  proceed(): void {
    this.#stage.abort(new Error('something else is wanted'));
  }

  pause(): void {
    const { status, group, limits } = this.#options;
    this.#pauseWanted = true;
    if (status.state !== 'interrupted') {
      group.unroute(limits.diskLimited);
      status.transitionTo('paused');
    }
    this.proceed();
  }

  resume(): void {
    this.#pauseWanted = false;
    this.proceed();
  }

  /** Nothing happens when it is over already, or the images are offered. */
  end(state: 'cancelled' | 'failed', error?: PlainError): void {
    if (this.#options.ending.decide(state, error)) this.proceed();
  }

  async #drive(): Promise<void> {
    const { status, stopping } = this.#options;
    while (!status.isFinal && !stopping.aborted) {
      const stage = new AbortController();
      this.#stage = stage;
      try {
        await this.#nextStage()(stage.signal);
      } catch (error) {
        if (!stage.signal.aborted) await this.#onDefect(error);
      }
    }
  }

  /** A stage failed by itself. Once the images are offered, or the end is decided, there is no other way than on. */
  async #onDefect(error: unknown): Promise<void> {
    const { environment, ending, log, stopping } = this.#options;
    const ended = ending.decided;
    this.end('failed', plainError(error));
    if (ending.decided && !ended) return;
    log('error', 'cannot go on; trying again', { ...plainError(error) });
    await pause(environment.clock, OFFER_INTERVAL, stopping).catch(() => {});
  }

  #nextStage(): (signal: AbortSignal) => Promise<void> {
    const { ending, offer, wire } = this.#options;
    if (ending.decided) return () => ending.carryOut();
    if (offer.taken) return () => this.#complete();
    if (!wire.open) return (signal) => this.#reconnect(signal);
    if (offer.made) return (signal) => this.#awaitTaken(signal);
    if (this.#pauseWanted) return (signal) => this.#rest(signal);
    return (signal) => this.#work(signal);
  }

  async #rest(signal: AbortSignal): Promise<void> {
    const { status, latch } = this.#options;
    status.transitionTo('paused');
    for (;;) await latch.changed(signal);
  }

  async #work(signal: AbortSignal): Promise<void> {
    const { request, group, phases, offer, requests, status } = this.#options;
    await phases.converge(signal);
    for (;;) {
      await phases.reachSync(signal);
      if (request.cutover === 'when-in-sync') requests.want();
      await this.#stayInSync(signal);
      if (group.clean && (await offer.make(signal))) return;
      if (!group.clean) status.transitionTo('dirty-resend');
    }
  }

  /** Until something is dirty or a cutover is wanted; then the replica thread has the images. */
  async #stayInSync(signal: AbortSignal): Promise<void> {
    const { group, requests, latch } = this.#options;
    while (group.clean && !requests.wanted) {
      group.fast.tryEnter();
      await latch.changed(signal);
    }
    await group.fast.leave();
    signal.throwIfAborted();
  }

  async #awaitTaken(signal: AbortSignal): Promise<void> {
    const { status, offer, latch } = this.#options;
    if (status.state !== 'cutover') {
      status.transitionTo('cutover');
      offer.send();
    }
    for (;;) await latch.changed(signal);
  }

  async #complete(): Promise<void> {
    const { requests, wire, ending, status } = this.#options;
    requests.measure();
    wire.detach()?.close();
    await ending.release();
    status.transitionTo('completed');
    requests.resolve();
  }

  async #reconnect(signal: AbortSignal): Promise<void> {
    const { environment, request, hello, wire, status, phases, offer, log } = this.#options;
    const { connection, resumption } = await reconnect({
      environment,
      wire,
      target: request.target,
      hello,
      patient: ({ code }) => offer.made && code !== 'CANCELLED',
      onError: (error) => {
        status.error = plainError(error);
      },
      signal,
    });
    if (resumption.kind === 'given-up') {
      const error = plainError(resumption.error);
      if (offer.made) offer.takeBack(error.message);
      this.end(error.code === 'CANCELLED' ? 'cancelled' : 'failed', error);
      return;
    }
    this.#watch(connection);
    status.error = undefined;
    // A comparison that was broken off is still owed, whatever the target remembers since.
    // One that remembers may do so since a resumption whose answer was lost: it had forgotten before.
    if (!resumption.remembers || resumption.instance !== this.#instance) phases.compareFirst();
    this.#instance = resumption.instance;
    log('info', 'connected again', { remembers: resumption.remembers, taken: resumption.taken });
    if (resumption.taken && offer.made) offer.accept();
    else if (resumption.taken) this.end('failed', NOT_OFFERED);
    else if (!offer.made)
      await openStreamBeside(connection, resumption.streamToken, this.#options.streamOpening, signal);
  }

  #watch(connection: PeerConnection): void {
    void connection.closed.then((reason) => this.#onLost(connection, reason));
  }

  #onLost(connection: PeerConnection, reason: MigrateFsError): void {
    const { request, group, wire, limits, status, offer, requests, verification, ending, stopping } =
      this.#options;
    if (!wire.isOver(connection)) return;
    verification.stop(`${request.target} was lost`, 'UNAVAILABLE');
    if (!offer.made) group.unroute(limits.diskLimited);
    wire.detach();
    if (status.isFinal || ending.decided || offer.taken || stopping.aborted) return;
    status.error = plainError(reason);
    status.transitionTo('interrupted');
    requests.reject(
      new MigrateFsError(
        'UNAVAILABLE',
        offer.made
          ? `${reason.message}; the images were offered to the target and stay fenced here until it answers`
          : `${reason.message}; the source goes on and resumes the migration`,
      ),
    );
    this.proceed();
  }
}
