import type { Clock } from '../../leaves/clock.js';
import type { SegmentLoad, TransferLoad } from '../../leaves/time-left.js';
import type { Bytes } from '../../leaves/units.js';
import { bytes } from '../../leaves/units.js';
import type { ImageGroup } from './image-group.js';
import { LoadMeter } from './load-meter.js';
import type { Progress } from './progress.js';

/** Looking through the bitmaps of large images takes at most this part of the thread's time. */
const SCAN_PART = 0.02;
const VISITS_MODULUS = 2 ** 32;

/** Looks at a migration at short intervals: what was sent, what guests wrote, what became dirty, and where. */
export class LoadObserver {
  readonly #clock: Clock;
  readonly #group: ImageGroup;
  readonly #progress: Progress;
  readonly #meter = new LoadMeter();
  #at: number;
  #acked = 0;
  #mirrored = 0;
  #segments: readonly SegmentLoad[] = [];
  #scanAfter = 0;

  constructor(clock: Clock, group: ImageGroup, progress: Progress) {
    this.#clock = clock;
    this.#group = group;
    this.#progress = progress;
    this.#at = clock.now();
  }

  /** To be called every 250 ms or so. */
  sample(): void {
    const now = this.#clock.now();
    const elapsed = now - this.#at;
    if (elapsed <= 0) return;
    this.#at = now;
    const sum = { dirtied: 0, written: 0, blocks: 0, newBlocks: 0 };
    for (const image of this.#group.images) {
      const { blockSize } = image.bitmap;
      const writes = image.takeWrites();
      sum.dirtied += image.takeNewlyDirty() * blockSize;
      sum.written += writes.bytes;
      sum.blocks += (writes.visits % VISITS_MODULUS) * blockSize;
      sum.newBlocks += writes.newBlocks * blockSize;
    }
    const { bytesAcked, bytesMirrored } = this.#progress;
    this.#progress.observed(sum.written, sum.dirtied, elapsed);
    const acked = bytesAcked - this.#acked;
    const mirrored = bytesMirrored - this.#mirrored;
    this.#acked = bytesAcked;
    this.#mirrored = bytesMirrored;
    this.#meter.sample({ seconds: elapsed / 1000, acked, mirrored, ...sum });
    if (now >= this.#scanAfter) this.#scan(now);
  }

  /** Rates and places as of the last sample. */
  load(left: Bytes): TransferLoad {
    const group = this.#group;
    const { converging, begunWith } = group;
    // The blocks at both ends of an extent are dirty as a whole.
    const allocated = bytes(Math.max(group.allocated, left));
    const load = this.#meter.load({ left, allocated, converging, begunWith, segments: this.#segments });
    if (this.#segments.length > 0) return load;
    const { segments: _none, ...rest } = load;
    return rest;
  }

  #scan(begin: number): void {
    this.#segments = this.#group.segments();
    const took = this.#clock.now() - begin;
    this.#scanAfter = begin + took / SCAN_PART;
  }
}
