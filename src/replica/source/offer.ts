import { MigrateFsError, plainError } from '../../leaves/errors.js';
import { millis } from '../../leaves/units.js';
import { fence, nextGenerations, quiesce, restoreRecords } from './cutover.js';
import type { CutoverRequests } from './cutover-requests.js';
import type { Log, SourceEnvironment } from './environment.js';
import type { ImageGroup } from './image-group.js';
import type { MigrationStatus } from './migration-status.js';
import type { SourceWire } from './source-wire.js';
import type { Verification } from './verification.js';

/** Between two tries of a target that could not persist its ownership. */
export const OFFER_INTERVAL = millis(1_000);
/** So long at most guests here wait for the answer to the offer; then they are refused. */
export const OFFER_HOLD_MAX = millis(10_000);

export interface OfferOptions {
  readonly environment: SourceEnvironment;
  readonly group: ImageGroup;
  readonly wire: SourceWire;
  readonly status: MigrationStatus;
  readonly requests: CutoverRequests;
  readonly verification: Verification;
  /** Of the migration. */
  readonly id: string;
  /** Data address of the target. */
  readonly target: string;
  readonly log: Log;
}

/**
 * The offer of the images to the target. Until it is made the source can take everything back; afterwards the target may
 * own the images, and only its word that it does not takes the fence back. Changes that guests here want meanwhile are
 * held: made once they are taken back, refused once the target has taken the images, or has not answered in time.
 */
export class Offer {
  readonly #options: OfferOptions;
  #made = false;
  #taken = false;
  /** Ends the wait for the answer; undefined: guests do not wait for it. */
  #forgetHold: (() => void) | undefined;

  constructor(options: OfferOptions) {
    this.#options = options;
  }

  /** The target may own the images: never unfence from here on. */
  get made(): boolean {
    return this.#made;
  }

  /** The target has said that it owns them. */
  get taken(): boolean {
    return this.#taken;
  }

  /**
   * Fences the images on disk and offers them. True: offered. False: given back, still in sync. Errors: what makes the
   * migration fail; rejects with the signal's reason.
   */
  async make(signal: AbortSignal): Promise<boolean> {
    const { environment, group, wire, status, verification, id, target } = this.#options;
    status.transitionTo('cutover');
    verification.stop(`migration ${id} cuts over`);
    try {
      await quiesce(group, wire, environment, signal);
      fence(group, { id, peer: target }, signal);
    } catch (error) {
      signal.throwIfAborted();
      this.#giveUp(error instanceof MigrateFsError ? error : new MigrateFsError('INTERNAL', String(error)));
      return false;
    }
    // No await between the fence and here.
    this.#made = true;
    wire.closeStream();
    this.#forgetHold = environment.clock.after(OFFER_HOLD_MAX, () => this.#onUnanswered());
    this.send();
    return true;
  }

  send(): void {
    const { wire, group } = this.#options;
    wire.tell({ cutoverOffer: { generations: nextGenerations(group.images) } });
  }

  /** The target could not persist its ownership; only it can say that it has. */
  sendLater(error: MigrateFsError): void {
    const { environment, status, log } = this.#options;
    status.error = plainError(error);
    log('error', 'the target could not take the images; offering again', { error: error.message });
    environment.clock.after(OFFER_INTERVAL, () => {
      if (!this.#taken && status.state === 'cutover') this.send();
    });
  }

  /** The target says that it owns the images. False: it was not offered them, or has said so before. */
  accept(): boolean {
    if (!this.#made || this.#taken) return false;
    this.#taken = true;
    this.refuse();
    return true;
  }

  /** What is held, and whatever comes, is refused: nobody waits for the answer any more. */
  refuse(): void {
    if (!this.#forgetHold) return;
    this.#stopWaiting();
    this.#options.group.seal();
  }

  /**
   * The target never owned the images and never will, for this reason. What is held stays so until the migration ends.
   * Errors: what writing a record threw; then the images stay offered.
   */
  takeBack(reason: string): void {
    restoreRecords(this.#options.group.images);
    this.#stopWaiting();
    this.#made = false;
    this.#options.log('warn', 'the target does not take the images: given back to their writers', { reason });
  }

  #stopWaiting(): void {
    this.#forgetHold?.();
    this.#forgetHold = undefined;
  }

  #onUnanswered(): void {
    this.#options.log(
      'error',
      'the offer of the images is not answered: guest writes here are refused (EROFS)',
      {
        milliseconds: OFFER_HOLD_MAX,
      },
    );
    this.refuse();
  }

  /** Not fenced durably: the writers go on. Throws `reason` where the migration cannot. */
  #giveUp(reason: MigrateFsError): void {
    const { group, wire, status, requests, log } = this.#options;
    log('error', 'cutover given up; the source goes on', { error: reason.message });
    requests.reject(reason);
    if (reason.code === 'UNAVAILABLE') wire.drop(reason);
    else if (reason.code !== 'ABORTED') throw reason;
    group.unfence();
    status.transitionTo('mirroring');
  }
}
