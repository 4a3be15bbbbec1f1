import { fdatasync } from 'node:fs';
import { Errno } from '../../fs/errno.js';
import { ImageMode } from '../../fs/image-table.js';
import type { RoutedRequest } from '../../fs/participant.js';
import type { MigrationState } from '../../leaves/migration.js';
import { isFinal } from '../../leaves/migration.js';
import type { Millis } from '../../leaves/units.js';
import type { FrameProperties } from '../wire/frame.js';
import type { ReplyRouted } from './held-requests.js';
import { HeldRequests } from './held-requests.js';
import type { MigrationTerms } from './migration-terms.js';
import type { TargetContext } from './target-context.js';
import type { TargetImage } from './target-image.js';

export interface GuestGateOptions {
  readonly context: Pick<TargetContext, 'clock' | 'table' | 'log'>;
  readonly terms: MigrationTerms;
  readonly images: () => readonly TargetImage[];
  readonly state: () => MigrationState;
  /** The source has offered the images. */
  readonly offered: () => boolean;
  /** To the source, if it is connected. */
  readonly send: (frame: FrameProperties) => void;
}

/**
 * What guests may do to replicas that are not this host's own yet: refused, or held until they are. The first change that
 * is held asks the source for the images.
 */
export class GuestGate {
  readonly #options: GuestGateOptions;
  readonly #held: HeldRequests;
  #asked = false;
  #closed = false;

  constructor(options: GuestGateOptions) {
    this.#options = options;
    this.#held = new HeldRequests(options.context.clock, (count) => this.#onExpired(count));
  }

  /** Changes come to this thread only when they may be held; otherwise participants refuse them themselves. */
  setModes(): void {
    const { context, state, images } = this.#options;
    const mode =
      state() === 'completed' ? ImageMode.idle : this.#mayHold() ? ImageMode.routed : ImageMode.fenced;
    for (const { slot } of images()) context.table.setMode(slot, mode);
  }

  handle(image: TargetImage, request: RoutedRequest, reply: ReplyRouted): void {
    if (request.op === 'fsync')
      fdatasync(request.fd, (error) => reply(error ? (error.errno ?? -Errno.EIO) : 0));
    else if (this.#options.state() === 'completed') reply(image.perform(request));
    else if (this.#mayHold()) {
      this.#held.hold(request, reply);
      this.#ask();
    } else reply(-Errno.EROFS);
  }

  /** Guests that came during a cutover that failed, or before a break, get what they asked for after all. */
  onInSync(): void {
    this.#asked = false;
    if (this.#options.terms.cutover === 'on-first-write') this.#ask();
    else if (this.#held.refuseAll() > 0) this.setModes();
  }

  setConnected(connected: boolean): void {
    if (!connected) this.#asked = false;
    this.#held.setConnected(connected);
  }

  /** The images are this host's own: performs what is held, in order. Returns how long the oldest had waited, if any. */
  open(): Millis | undefined {
    const bySlot = new Map(this.#options.images().map((image) => [image.slot, image]));
    return this.#held.releaseAll((request) => bySlot.get(request.slot)!.perform(request));
  }

  refuseAll(): void {
    this.#held.refuseAll();
  }

  /** The daemon stops: nothing is held any more. */
  close(): void {
    this.#closed = true;
    this.#held.refuseAll();
  }

  /**
   * Once a guest's change is held, or the images were offered, a VM runs here: then what follows waits as well,
   * whatever becomes of the connection, until the longest stall is over.
   */
  #mayHold(): boolean {
    const state = this.#options.state();
    if (this.#closed || isFinal(state)) return false;
    if (this.#held.size > 0 || state === 'cutover') return true;
    if (state === 'interrupted') return this.#options.offered();
    return state === 'mirroring' && this.#options.terms.cutover === 'on-first-write';
  }

  #ask(): void {
    const { context, terms, state, send } = this.#options;
    if (this.#asked || state() !== 'mirroring' || this.#held.size === 0) return;
    this.#asked = true;
    context.log('info', 'first guest write on the target: asking for the images', { migration: terms.id });
    send({ cutoverRequest: {} });
  }

  #onExpired(count: number): void {
    const { context, terms, state } = this.#options;
    this.#asked = false;
    if (!isFinal(state())) this.setModes();
    context.log('error', 'no ownership in time: guest writes refused (EROFS)', {
      migration: terms.id,
      count,
      state: state(),
    });
  }
}
