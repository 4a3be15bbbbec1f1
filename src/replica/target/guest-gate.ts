import { fdatasync } from 'node:fs';
import { Errno } from '../../fs/errno.js';
import { ImageMode } from '../../fs/image-table.js';
import type { RoutedRequest } from '../../fs/participant.js';
import type { MigrationState } from '../../leaves/migration.js';
import { isFinal } from '../../leaves/migration.js';
import type { Millis } from '../../leaves/units.js';
import type { FrameProperties } from '../wire/frame.js';
import type { ReplyRouted } from './held-requests.js';
import { HeldRequests, LOST_STALL_MAX } from './held-requests.js';
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
  /** The images are wanted now. */
  readonly asked: () => void;
}

/** The connection broke while in sync, and the images are not in sync again yet. */
interface Break {
  /** What the source had changed until then: as long as it is no more, guests here read what the source has. */
  readonly changes: number;
  /** No longer ago than `LOST_STALL_MAX`: a guest's first change waits for the source to come back. */
  recent: boolean;
  /** The first change that is held has come since. */
  held: boolean;
  readonly forget: () => void;
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
  #break: Break | undefined;

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
      if (this.#break && this.#held.size === 0) this.#break.held = true;
      this.#held.hold(request, reply);
      this.#ask();
    } else reply(-Errno.EROFS);
  }

  /**
   * Guests that came during a cutover that failed, or around a break, get what they asked for after all; but not one
   * that came while the replicas were older than the images: what it writes may follow from what it read.
   */
  onInSync(): void {
    this.#asked = false;
    const outdated = this.#break?.held === true && this.#changes > this.#break.changes;
    this.#endBreak();
    if (outdated) this.#refuseOutdated();
    else if (this.#options.terms.cutover === 'on-first-write') this.#ask();
    else if (this.#held.refuseAll() > 0) this.setModes();
  }

  /** The source is lost, and will probably be back; called before the state says so. */
  onBreak(): void {
    const { context, terms, state } = this.#options;
    if (this.#closed || state() !== 'mirroring' || terms.cutover !== 'on-first-write') return;
    // One that came before has its own time.
    if (this.#held.size > 0) return;
    const forget = context.clock.after(LOST_STALL_MAX, () => this.#onLasting());
    this.#break = { changes: this.#changes, recent: true, held: false, forget };
  }

  setConnected(connected: boolean): void {
    if (!connected) this.#asked = false;
    this.#held.setConnected(connected);
  }

  /** The images are this host's own: performs what is held, in order. Returns how long the oldest had waited, if any. */
  open(): Millis | undefined {
    this.#endBreak();
    const bySlot = new Map(this.#options.images().map((image) => [image.slot, image]));
    return this.#held.releaseAll((request) => bySlot.get(request.slot)!.perform(request));
  }

  refuseAll(): void {
    this.#endBreak();
    this.#held.refuseAll();
  }

  /** The daemon stops: nothing is held any more. */
  close(): void {
    this.#closed = true;
    this.refuseAll();
  }

  /**
   * Once a guest's change is held, or the images were offered, a VM runs here: then what follows waits as well,
   * whatever becomes of the connection, until the longest stall is over. A VM may come during a short break as well.
   */
  #mayHold(): boolean {
    const state = this.#options.state();
    if (this.#closed || isFinal(state)) return false;
    if (this.#held.size > 0 || state === 'cutover') return true;
    if (state === 'interrupted' && this.#options.offered()) return true;
    if (state === 'interrupted' || state === 'dirty-resend') return this.#break?.recent === true;
    return state === 'mirroring' && this.#options.terms.cutover === 'on-first-write';
  }

  #ask(): void {
    const { context, terms, state, send, asked } = this.#options;
    if (this.#asked || state() !== 'mirroring' || this.#held.size === 0) return;
    this.#asked = true;
    context.log('info', 'first guest write on the target: asking for the images', { migration: terms.id });
    send({ cutoverRequest: {} });
    asked();
  }

  /** Changes of the source to all images so far. */
  get #changes(): number {
    return this.#options.images().reduce((sum, { changes }) => sum + changes, 0);
  }

  #endBreak(): void {
    this.#break?.forget();
    this.#break = undefined;
  }

  /** From now on a guest's first change is refused at once; what is held has its own time. */
  #onLasting(): void {
    if (this.#break) this.#break.recent = false;
    this.setModes();
  }

  #refuseOutdated(): void {
    const { context, terms } = this.#options;
    context.log(
      'warn',
      'the source had changed the images when a guest came here during a break: its writes are refused (EROFS)',
      { migration: terms.id, count: this.#held.refuseAll() },
    );
  }

  #onExpired(count: number): void {
    const { context, terms, state } = this.#options;
    this.#asked = false;
    if (this.#break) this.#break.recent = this.#break.held = false;
    if (!isFinal(state())) this.setModes();
    context.log('error', 'no ownership in time: guest writes refused (EROFS)', {
      migration: terms.id,
      count,
      state: state(),
    });
  }
}
