import type { Clock } from '../../leaves/clock.js';
import type { Millis } from '../../leaves/units.js';
import { millis } from '../../leaves/units.js';
import type { SourceEnvironment } from './environment.js';
import type { Latch } from './latch.js';
import type { TransferCounters } from './ports.js';
import type { SourceImage } from './source-image.js';
import type { SourceWire } from './source-wire.js';
import type { StreamLink } from './stream-link.js';

/** After something that only the replica thread can do, which seldom comes alone. */
const QUIET = millis(100);
/** Changes are held for so long at most, until nothing is in flight on the connection. */
const ENTERING_MAX = millis(50);
/** What may be under way in a lane, as a part of what the network takes in a second: leaving takes so long. */
const WINDOW_SECONDS = 0.25;
/** Between two looks at what the threads of the lane have counted and marked. */
const LOOK_INTERVAL = millis(250);
const COUNT_RANGE = 2 ** 32;

export interface FastMirrorOptions {
  readonly environment: Pick<SourceEnvironment, 'clock' | 'grace' | 'turn' | 'lanes'>;
  readonly images: readonly SourceImage[];
  readonly wire: SourceWire;
  readonly counters: TransferCounters;
  readonly latch: Latch;
  /** Whether a limit is set: what is limited goes through the replica thread. */
  readonly limited: () => boolean;
  /** What the network was seen to take, bytes per second. */
  readonly linkRate: () => number;
}

/**
 * When the images of a group are mirrored by the threads that get their writes (`MirrorLane`), and when by the replica
 * thread. One of the two at a time: the lane is entered when nothing is in flight on the connection, and left before
 * anything is sent there, so the target sees changes in the order they were made.
 */
export class FastMirror {
  readonly #options: FastMirrorOptions;
  #link: StreamLink | undefined;
  /** The one whose lane the participants know. */
  #announced: StreamLink | undefined;
  #entering: { readonly stop: AbortController; readonly over: Promise<void> } | undefined;
  /** The lane is being left, and perhaps writes of it are still being made. */
  #leaving: Promise<void> | undefined;
  /** Who wants the replica thread to have the images. */
  #blocked = 0;
  #notBefore: Millis = millis(0);
  #sent = 0;
  #acked = 0;
  #forgetLook: () => void = () => {};
  #forgetRetry: () => void = () => {};

  constructor(options: FastMirrorOptions) {
    this.#options = options;
  }

  /** A lane has the images, or is about to, or is being left. */
  get active(): boolean {
    return (this.#link ?? this.#entering ?? this.#leaving) !== undefined;
  }

  /** While in sync: enters the lane if that is possible, and has the latch notified when it is worth another try. */
  tryEnter(): void {
    const stream = this.#usable;
    if (this.#link || this.#entering || !stream) return;
    if (this.#leaving || this.#options.environment.clock.now() < this.#notBefore) {
      this.#retryLater();
      return;
    }
    const stop = new AbortController();
    const over = this.#enter(stream, stop).finally(() => {
      this.#entering = undefined;
    });
    this.#entering = { stop, over };
  }

  /** Resolves when the replica thread has the images, with everything that the lane had begun acknowledged or lost. */
  async leave(): Promise<void> {
    this.#entering?.stop.abort();
    await this.#entering?.over;
    const link = this.#link;
    if (!link) return this.#leaving;
    for (const image of this.#options.images) image.leaveLane();
    await this.#left(link, () => {
      // Unless somebody wants something else of them since.
      for (const image of this.#options.images) image.goOnMirroring();
    });
  }

  /** After another mode was set; `leave` tells when nothing of the lane is being made any more. */
  drop(): void {
    this.#entering?.stop.abort();
    const link = this.#link;
    if (link) void this.#left(link, () => {});
  }

  /** It is over: the stream goes, and its lane with the bitmaps. */
  forget(): void {
    this.#announced = undefined;
  }

  /** Runs `work` while the replica thread has the images. */
  async without<T>(work: () => Promise<T>): Promise<T> {
    this.#blocked++;
    try {
      await this.leave();
      return await work();
    } finally {
      this.#blocked--;
      this.#options.latch.notify();
    }
  }

  get #usable(): StreamLink | undefined {
    const { wire, environment, limited } = this.#options;
    const { stream } = wire;
    if (!environment.lanes || this.#blocked > 0 || limited()) return undefined;
    return stream?.hasLane && !stream.isClosed ? stream : undefined;
  }

  /** Under a steady load something is always in flight: so changes are held until what was sent is acknowledged. */
  async #enter(stream: StreamLink, stop: AbortController): Promise<void> {
    const { images, environment } = this.#options;
    const onHeld = (): void => this.#onHeld();
    for (const image of images) image.holdForLane({ link: stream, onHeld });
    const forget = environment.clock.after(ENTERING_MAX, () => stop.abort());
    const quiet = await this.#nothingInFlight(stop.signal);
    forget();
    const clean = images.every((image) => image.clean);
    if (!quiet || stop.signal.aborted || !clean || this.#usable !== stream) {
      for (const image of images) image.goOnMirroring();
      this.#retryLater();
      return;
    }
    this.#link = stream;
    stream.lane.window = this.#options.linkRate() * WINDOW_SECONDS;
    const announce = this.#announced !== stream;
    if (announce) stream.setMarks(images.map((image) => image.laneMarks));
    this.#announced = stream;
    [this.#sent, this.#acked] = [stream.lane.bytesSent, stream.lane.bytesAcked];
    this.#look(environment.clock);
    for (const image of images) image.enterLane(announce ? stream.announcement(image.index) : undefined);
    for (const image of images) {
      image.useLane();
      // What was held has the lane left again: the others stay as they are.
      if (this.#link !== stream) return;
    }
  }

  /** False: not in time. */
  async #nothingInFlight(signal: AbortSignal): Promise<boolean> {
    const { images, wire } = this.#options;
    try {
      for (const { sender, locks } of images) {
        await sender.sent(signal);
        await locks.passed();
      }
      await wire.inFlight.drained(signal);
      return true;
    } catch {
      return false;
    }
  }

  #left(link: StreamLink, then: () => void): Promise<void> {
    const { environment, images } = this.#options;
    this.#link = undefined;
    this.#forgetLook();
    const slots = images.map(({ pinned }) => pinned.slot);
    const left = (async () => {
      await environment.grace.elapsed(slots, environment.turn);
      await link.laneDrained();
      this.#count(link);
      this.#leaving = undefined;
      then();
    })();
    this.#leaving = left;
    return left;
  }

  /** A change that only the replica thread can make. */
  #onHeld(): void {
    if (!this.#link) return;
    this.#notBefore = millis(this.#options.environment.clock.now() + QUIET);
    void this.leave().then(() => this.#retryLater());
  }

  #retryLater(): void {
    const { environment, latch } = this.#options;
    this.#forgetRetry();
    this.#forgetRetry = environment.clock.after(QUIET, () => latch.notify());
  }

  /** What the lane's threads do is told to nobody. */
  #look(clock: Clock): void {
    this.#forgetLook = clock.after(LOOK_INTERVAL, () => {
      const { images, latch } = this.#options;
      if (!this.#link) return;
      this.#count(this.#link);
      if (images.some(({ clean }) => !clean)) latch.notify();
      this.#look(clock);
    });
  }

  #count({ lane }: StreamLink): void {
    const { counters } = this.#options;
    const { bytesSent, bytesAcked } = lane;
    counters.sent((bytesSent - this.#sent + COUNT_RANGE) % COUNT_RANGE, 'mirror');
    counters.acked((bytesAcked - this.#acked + COUNT_RANGE) % COUNT_RANGE);
    [this.#sent, this.#acked] = [bytesSent, bytesAcked];
  }
}
