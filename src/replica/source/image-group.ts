import assert from 'node:assert/strict';
import type { ImageSlot } from '../../fs/image-table.js';
import { CONVERGE_BYTES, CONVERGE_SECONDS, ROUND_SHRINK_MIN } from '../../leaves/copy-forecast.js';
import { MigrateFsError } from '../../leaves/errors.js';
import type { SegmentLoad } from '../../leaves/time-left.js';
import type { Bytes } from '../../leaves/units.js';
import { bytes, MiB } from '../../leaves/units.js';
import { copyRound } from './copy-round.js';
import type { Log, SourceEnvironment } from './environment.js';
import { FastMirror } from './fast-mirror.js';
import type { Latch } from './latch.js';
import { MIRRORED_BYTES_MAX } from './mirror-sender.js';
import type { Pacing } from './pacing.js';
import type { Progress } from './progress.js';
import { resync } from './resync.js';
import type { CopyPosition } from './segments.js';
import { Segments } from './segments.js';
import type { SourceImage } from './source-image.js';
import type { SourceWire } from './source-wire.js';
import { Window } from './window.js';

/** Bytes of copies sent and not acknowledged: as much as the link moves in this time, within these bounds. */
const IN_FLIGHT_SECONDS = 0.25;
const IN_FLIGHT_BYTES_MIN = bytes(2 * MiB);
const IN_FLIGHT_BYTES_MAX = bytes(16 * MiB);
/** Extents marked before other work of the thread gets its turn. */
const MARK_EXTENTS_MAX = 1000;
/** Bottleneck counts from 0, the first, to 9; migrations the other way round. */
const PRIORITY_MAX = 9;

export interface ImageGroupOptions {
  readonly environment: SourceEnvironment;
  readonly wire: SourceWire;
  readonly progress: Progress;
  readonly pacing: Pacing;
  readonly latch: Latch;
  /** 0 (least) to 9. */
  readonly priority: number;
  /** Whether the network or the disk is limited. */
  readonly limited: () => boolean;
}

/** The images that become in sync together, and the steps that get them there. */
export class ImageGroup {
  readonly images: SourceImage[] = [];
  /** Of copies. */
  readonly window: Window;
  readonly mirrorWindow = new Window(() => MIRRORED_BYTES_MAX);
  readonly fast: FastMirror;
  readonly #options: ImageGroupOptions;
  /** What still uses the descriptors of the images. */
  readonly #users = new Set<Promise<unknown>>();
  #marked = false;
  #converging = false;
  /** The most that was seen at the end of a copy. */
  #linkRate = 0;
  #begunWith = bytes(0);
  #segments: Segments | undefined;
  readonly #position: CopyPosition = { image: 0, block: 0 };

  constructor(options: ImageGroupOptions) {
    this.#options = options;
    const { progress, environment, wire, latch, limited } = options;
    this.fast = new FastMirror({
      environment,
      images: this.images,
      wire,
      counters: progress,
      latch,
      limited,
      linkRate: () => this.#linkRate,
    });
    this.window = new Window(() =>
      Math.min(Math.max(progress.netRate * IN_FLIGHT_SECONDS, IN_FLIGHT_BYTES_MIN), IN_FLIGHT_BYTES_MAX),
    );
  }

  /** Nothing dirty, nothing in flight. Exact once every change is routed. */
  get clean(): boolean {
    return this.images.every((image) => image.clean);
  }

  get slots(): readonly ImageSlot[] {
    return this.images.map(({ pinned }) => pinned.slot);
  }

  /** Whether the network or the disk is limited. */
  get limited(): boolean {
    return this.#options.limited();
  }

  /** Keeps the images from being closed until `promise` is settled; returns it. */
  using<T>(promise: Promise<T>): Promise<T> {
    this.#users.add(promise);
    const forget = (): void => void this.#users.delete(promise);
    promise.then(forget, forget);
    return promise;
  }

  /** RESOURCE_EXHAUSTED: an image was changed where nothing can be marked. */
  assertTracked(): void {
    const image = this.images.find(({ bitmap }) => bitmap.overflowed);
    if (image)
      throw new MigrateFsError(
        'RESOURCE_EXHAUSTED',
        `image ${image.name} grew beyond what can be tracked while it migrates; start again`,
      );
  }

  get allocated(): Bytes {
    return this.images.reduce((sum, { pinned }) => sum + pinned.allocated, 0) as Bytes;
  }

  /** Bytes dirty or not acknowledged. */
  get left(): Bytes {
    return this.images.reduce((sum, image) => sum + image.left, 0) as Bytes;
  }

  /** Everything that holds data has been marked: from then on `left` is all that the first round has to copy. */
  get marked(): boolean {
    return this.#marked;
  }

  /** Bytes that are to be sent again, or for the first time. */
  get dirty(): Bytes {
    return this.images.reduce((sum, { bitmap }) => sum + bitmap.dirtyBytes, 0) as Bytes;
  }

  /** The images are routed for the mirror, or about to be. */
  get converging(): boolean {
    return this.#converging;
  }

  /** Once nothing uses them: closes the images and gives their pins back. */
  async release(log: Log): Promise<void> {
    while (this.#users.size > 0) await Promise.allSettled(this.#users);
    for (const image of this.images) {
      try {
        image.close();
        await this.#options.environment.store.release(image.pinned.slot, false);
      } catch (error) {
        log('error', 'cannot release an image', { image: image.name, error: (error as Error).message });
      }
    }
  }

  /** It is over: its images and their bitmaps go. */
  forget(): void {
    this.images.length = 0;
    this.#segments = undefined;
    this.fast.forget();
  }

  /** Bytes that were left at the beginning of the present round. */
  get begunWith(): Bytes {
    return this.#begunWith;
  }

  /** What is dirty and what is written to, before and behind the copier. Looks through the bitmaps. */
  segments(): SegmentLoad[] {
    this.#segments ??= new Segments(this.images);
    return this.#segments.describe(this.#position);
  }

  /** The first round: everything that holds data. */
  async copyAll(signal: AbortSignal): Promise<void> {
    if (!this.#marked) {
      for (const image of this.images) {
        for (let at = 0; at >= 0; ) {
          at = image.markData(at, MARK_EXTENTS_MAX);
          await this.#options.environment.turn();
          signal.throwIfAborted();
        }
      }
      this.#marked = true;
      this.#segments ??= new Segments(this.images);
      this.#segments.measureAllocated();
    }
    await this.#round(signal, Math.max(this.allocated, this.left));
  }

  /** Marks what differs on a target that has forgotten what it acknowledged; returns how many bytes. */
  async compare(signal: AbortSignal): Promise<Bytes> {
    const { environment, wire } = this.#options;
    let marked = 0;
    for (const image of this.images) marked += await resync(image, wire, environment, signal);
    return bytes(marked);
  }

  /** Rounds while writers go on in their own threads, as long as each leaves clearly less than the one before. */
  async shrink(signal: AbortSignal): Promise<void> {
    let before = Math.max(this.allocated, this.left);
    for (;;) {
      const { dirty } = this;
      const little = Math.max(CONVERGE_BYTES, this.#options.progress.netRate * CONVERGE_SECONDS);
      if (dirty <= little || dirty >= before * ROUND_SHRINK_MIN) return;
      before = dirty;
      await this.#round(signal);
    }
  }

  /** Before the first round of a copy. */
  async beginBulk(signal: AbortSignal): Promise<void> {
    if (!this.#converging) await this.#options.wire.beginBulk(signal);
  }

  /** Phase edge: once this resolves, clean blocks stay clean. */
  async converge(signal: AbortSignal): Promise<void> {
    const { environment, wire, progress } = this.#options;
    const { grace, turn } = environment;
    if (this.#converging) return;
    this.#linkRate = Math.max(this.#linkRate, progress.netRate);
    await wire.endBulk(signal);
    this.#converging = true;
    for (const image of this.images) image.route();
    await grace.elapsed(this.slots, turn, signal);
    signal.throwIfAborted();
    for (const image of this.images) image.mirror();
  }

  /** Copies until nothing is dirty or in flight; ends because of `converge`, whatever the guests write. */
  async copyRest(signal: AbortSignal): Promise<void> {
    while (!this.clean) {
      if (this.images.some((image) => image.bitmap.dirtyBlocks > 0)) await this.#round(signal);
      else await this.#options.latch.changed(signal);
      signal.throwIfAborted();
    }
  }

  /** Back to marking, from any phase before the offer. */
  unroute(limited: boolean): void {
    this.#converging = false;
    for (const image of this.images) image.unroute(limited);
    this.fast.drop();
  }

  /** Only while the replica thread has the images. */
  fence(): void {
    assert(!this.fast.active, 'fenced while a lane has the images');
    for (const image of this.images) image.fence();
  }

  seal(): void {
    for (const image of this.images) image.seal();
  }

  /** Takes the fence back: as it was while mirroring. */
  unfence(): void {
    for (const image of this.images) image.unfence();
  }

  idle(): void {
    for (const image of this.images) image.idle();
    this.fast.drop();
  }

  async #round(signal: AbortSignal, begunWith: number = this.left): Promise<void> {
    const { environment, pacing, priority } = this.#options;
    const { window } = this;
    this.#begunWith = bytes(begunWith);
    const position = this.#position;
    const turnPriority = PRIORITY_MAX - priority;
    const options = { window, pacing, turns: environment.turns, turnPriority, position };
    await copyRound(this.images, options, signal);
    signal.throwIfAborted();
  }
}
