import type { BackingCalls } from './backing-calls.js';
import { DirtyBitmap } from './dirty-bitmap.js';
import type { GraceCounters, ImageSlot, ImageTable } from './image-table.js';
import { ImageMode } from './image-table.js';
import type { BegunSync } from './lane-writer.js';
import { LaneWriter } from './lane-writer.js';
import type { LaneRequest } from './mirror-lane.js';
import type { BitmapAnnouncement } from './participant.js';
import { WrittenBlocks } from './written-blocks.js';

const EROFS = 30;

/** Where changes of one image are marked, and its writes are counted. */
interface Tracked {
  readonly epoch: number;
  readonly bitmap: DirtyBitmap;
  readonly written: WrittenBlocks;
  /** While mode `mirrored` is possible. */
  readonly lane: LaneWriter | undefined;
}

/** The result that says: hand this to the replica thread. No system call returns it. */
export const ROUTED = -1_000_000;

/**
 * Every change to an image, as performed by the thread that got the request: by the image's mode it is done here,
 * done here and marked dirty, handed over (`ROUTED`), or refused (-EROFS).
 *
 * Invariant: a change made while the mode is `tracked` is marked after it was made and before it is answered,
 * whether it succeeded or not (a failed pwrite may have changed some of its bytes).
 */
export class ImageIo {
  readonly #table: ImageTable;
  readonly #grace: GraceCounters;
  readonly #participant: number;
  readonly #calls: BackingCalls;
  readonly #drainAnnouncements: () => void;
  readonly #tracked = new Map<ImageSlot, Tracked>();

  /** `drainAnnouncements` reads the participant's port synchronously and feeds `announce`. */
  constructor(
    table: ImageTable,
    grace: GraceCounters,
    participant: number,
    calls: BackingCalls,
    drainAnnouncements: () => void,
  ) {
    this.#table = table;
    this.#grace = grace;
    this.#participant = participant;
    this.#calls = calls;
    this.#drainAnnouncements = drainAnnouncements;
  }

  announce({ slot, epoch, blockSize, ...announced }: BitmapAnnouncement): void {
    if (announced.bitmap === null || announced.written === null) {
      this.#tracked.delete(slot);
      return;
    }
    const bitmap = new DirtyBitmap(announced.bitmap, blockSize);
    const written = new WrittenBlocks(announced.written, blockSize);
    const lane =
      announced.lane && new LaneWriter(announced.lane, this.#participant, this.#calls, bitmap, written);
    this.#tracked.set(slot, { epoch, bitmap, written, lane });
  }

  /**
   * `request`: what a lane needs to send it; a write without it is routed where others are mirrored. The result may be
   * `ANSWERED_LATER` then. `whole`: see `BackingCalls`.
   */
  write(
    slot: ImageSlot,
    fd: number,
    data: Uint8Array,
    length: number,
    offset: number,
    request?: LaneRequest,
    whole = false,
  ): number {
    this.#grace.enter(this.#participant, slot);
    try {
      switch (this.#table.mode(slot)) {
        case ImageMode.idle:
          return this.#calls.pwrite(fd, data, length, offset, whole);
        case ImageMode.tracked: {
          const written = this.#calls.pwrite(fd, data, length, offset, whole);
          const tracked = this.#trackedOf(slot);
          tracked.bitmap.mark(offset, this.#changed(fd, written, offset, length));
          tracked.written.note(offset, written);
          return written;
        }
        case ImageMode.mirrored:
          if (!request || length === 0) return ROUTED;
          return this.#trackedOf(slot).lane?.write(slot, fd, data, length, offset, request, whole) ?? ROUTED;
        case ImageMode.routed:
          return ROUTED;
        case ImageMode.fenced:
          return -EROFS;
      }
    } finally {
      this.#grace.exit(this.#participant);
    }
  }

  /**
   * As `write`, for what is to be durable before it is answered: on both sides where others are mirrored. `flush`: makes it
   * so here, and gives 0 or -errno.
   */
  writeDurably(
    slot: ImageSlot,
    fd: number,
    data: Uint8Array,
    length: number,
    offset: number,
    request: LaneRequest | undefined,
    flush: () => number,
    whole = false,
  ): number {
    const begun =
      request &&
      length > 0 &&
      this.#inLane(slot, (lane) => lane.writeDurably(slot, fd, data, length, offset, request, whole));
    const written = begun ? begun.written : this.write(slot, fd, data, length, offset, undefined, whole);
    const flushed = written < 0 ? written : flush();
    const result = flushed < 0 ? flushed : written;
    return begun ? begun.made(result) : result;
  }

  fallocate(slot: ImageSlot, fd: number, mode: number, offset: number, length: number): number {
    const perform = (): number => this.#calls.fallocate(fd, mode, offset, length);
    return this.#change(slot, perform, offset, (result) => this.#changed(fd, result, offset, length));
  }

  /** Marks what is gained or lost, so that the copier sends a hole or zeroes for it and the new size. */
  truncate(slot: ImageSlot, fd: number, size: number): number {
    const before = this.#calls.fileSize(fd);
    const from = Math.min(before, size);
    const perform = (): number => this.#calls.ftruncate(fd, size);
    // It changes all of it or nothing.
    return this.#change(slot, perform, from, (result) => (result < 0 ? 0 : Math.max(before, size) - from));
  }

  /**
   * Routed images sync both sides: over the lane that has them, with a `request`, or else in the replica thread. A fenced
   * image has nothing left to sync. The result may be `ANSWERED_LATER`.
   */
  fsync(slot: ImageSlot, fd: number, datasync: boolean, request?: LaneRequest): number {
    const begun = request && this.#inLane(slot, (lane) => lane.sync(request));
    if (begun) return begun.made(this.#calls.fsync(fd, datasync));
    const mode = this.#table.mode(slot);
    const routed = mode === ImageMode.routed || mode === ImageMode.mirrored;
    return routed ? ROUTED : this.#calls.fsync(fd, datasync);
  }

  /** Only what is sent has to be over before the lane can be left: a flush may take seconds. */
  #inLane(slot: ImageSlot, begin: (lane: LaneWriter) => BegunSync | undefined): BegunSync | undefined {
    if (this.#table.mode(slot) !== ImageMode.mirrored) return undefined;
    this.#grace.enter(this.#participant, slot);
    try {
      if (this.#table.mode(slot) !== ImageMode.mirrored) return undefined;
      const { lane } = this.#trackedOf(slot);
      return lane && begin(lane);
    } finally {
      this.#grace.exit(this.#participant);
    }
  }

  /** Bytes from `offset` that a change may have changed; of one that failed, none past the end of the file. */
  #changed(fd: number, result: number, offset: number, length: number): number {
    return result < 0 ? Math.min(length, this.#calls.fileSize(fd) - offset) : length;
  }

  #change(
    slot: ImageSlot,
    perform: () => number,
    offset: number,
    changed: (result: number) => number,
  ): number {
    this.#grace.enter(this.#participant, slot);
    try {
      switch (this.#table.mode(slot)) {
        case ImageMode.idle:
          return perform();
        case ImageMode.tracked: {
          const result = perform();
          this.#trackedOf(slot).bitmap.mark(offset, changed(result));
          return result;
        }
        case ImageMode.routed:
        case ImageMode.mirrored:
          return ROUTED;
        case ImageMode.fenced:
          return -EROFS;
      }
    } finally {
      this.#grace.exit(this.#participant);
    }
  }

  #trackedOf(slot: ImageSlot): Tracked {
    const epoch = this.#table.epoch(slot);
    let known = this.#tracked.get(slot);
    if (known?.epoch !== epoch) {
      this.#drainAnnouncements();
      known = this.#tracked.get(slot);
    }
    if (known?.epoch !== epoch) throw new Error(`no bitmap announced for image slot ${slot}`);
    return known;
  }
}
