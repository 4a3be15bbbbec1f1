import assert from 'node:assert/strict';
import type { BackingCalls } from '../../fs/backing-calls.js';
import { blockSizeFor, DirtyBitmap } from '../../fs/dirty-bitmap.js';
import type { PinnedImage } from '../../fs/image-store.js';
import type { ImageTable } from '../../fs/image-table.js';
import { ImageMode } from '../../fs/image-table.js';
import type { LaneAnnouncement } from '../../fs/mirror-lane.js';
import type { BitmapAnnouncement } from '../../fs/participant.js';
import { WrittenBlocks } from '../../fs/written-blocks.js';
import type { Bytes } from '../../leaves/units.js';
import { bytes, GiB, MiB } from '../../leaves/units.js';
import { ExtentLocks } from '../extent-locks.js';
import type { LaneMarks } from '../stream-messages.js';
import type { BufferPool } from './buffer-pool.js';
import { Copier } from './copier.js';
import type { TakeTokens } from './mirror-sender.js';
import { MirrorSender } from './mirror-sender.js';
import type { ImagePort, Outcome, TransferCounters, WirePort } from './ports.js';
import type { WriteRequest } from './routed-writer.js';
import { RoutedWriter } from './routed-writer.js';
import type { StreamLink } from './stream-link.js';
import type { Window } from './window.js';

const NOTHING = new Uint8Array(0);

/** What an image needs of the lane that has it. */
export interface ImageLane {
  readonly link: Pick<StreamLink, 'laneWrite'>;
  /** A change came that the lane cannot make; it is held. */
  readonly onHeld: () => void;
}

/** Room for an image to grow while it migrates; only address space until it is used. */
const GROWTH_FACTOR = 4;
const GROWTH_BYTES = 1024 * GiB;
/** What the bits of one image may take at most. */
const BITMAP_BYTES_MAX = 64 * MiB;
const BITS_PER_BYTE = 8;

export interface SourceImageOptions {
  /** Number of the image within its group. */
  readonly index: number;
  readonly name: string;
  readonly pinned: PinnedImage;
  readonly blockSize?: Bytes | undefined;
  /** Bytes the bitmap can track; by default enough for any likely growth. */
  readonly capacity?: Bytes;
  readonly table: ImageTable;
  readonly calls: BackingCalls;
  readonly port: ImagePort;
  readonly wire: WirePort;
  readonly buffers: BufferPool;
  readonly counters: TransferCounters;
  readonly takeDisk: TakeTokens;
  readonly takeNet: TakeTokens;
  /** Of the mirrored writes of the whole group. */
  readonly mirrorWindow: Window;
  readonly syncBothSides: () => boolean;
  readonly flush?: (fd: number, datasync: boolean) => Promise<number>;
  /** Posts to every participant. */
  readonly announce: (announcement: BitmapAnnouncement) => void;
  /** Something was settled or became dirty: the state of the group may have to change. */
  readonly onProgress: () => void;
  readonly onSettled: (bytes: number, outcome: Outcome) => void;
}

/**
 * One image of a migrating group on its source: the bitmap, who copies it, who performs its routed changes, and the
 * mode that other threads see. Grace periods are the caller's: it waits for one after each change of mode that says so.
 */
export class SourceImage {
  readonly name: string;
  readonly index: number;
  readonly pinned: PinnedImage;
  readonly bitmap: DirtyBitmap;
  readonly written: WrittenBlocks;
  readonly locks = new ExtentLocks();
  readonly copier: Copier;
  readonly sender: MirrorSender;
  readonly writer: RoutedWriter;
  readonly port: ImagePort;
  /** What lies before is as on the target, or dirty: a comparison that is broken off goes on here. */
  compared = 0;
  readonly #options: SourceImageOptions;
  #sentSize = -1;
  /** Dirty blocks and cleared blocks when the newly dirtied were last asked for. */
  #sampled = 0;
  #selfMarked = 0;
  /** As of when writes were last asked for. */
  #writes = { bytes: 0, visits: 0, blocks: 0 };
  /** As known last. */
  #size: Bytes;
  #closed = false;
  /** While a lane has the image, or is about to. */
  #lane: ImageLane | undefined;

  constructor(options: SourceImageOptions) {
    const { index, name, pinned, port, wire, counters } = options;
    this.#options = options;
    this.index = index;
    this.name = name;
    this.pinned = pinned;
    this.#size = pinned.size;
    this.port = port;
    const { blockSize = blockSizeFor(pinned.size) } = options;
    const { capacity = bitmapCapacity(pinned.size, blockSize) } = options;
    this.bitmap = DirtyBitmap.allocate(capacity, blockSize);
    this.written = WrittenBlocks.allocate(capacity, blockSize);
    const common = { image: index, bitmap: this.bitmap, wire, locks: this.locks, counters };
    const { buffers, calls, takeDisk, takeNet, mirrorWindow, syncBothSides, flush, onProgress, onSettled } =
      options;
    this.copier = new Copier({ ...common, port, buffers, onSettled });
    this.sender = new MirrorSender({ ...common, port, buffers, takeNet, window: mirrorWindow });
    this.writer = new RoutedWriter({
      ...common,
      ...(flush ? { flush } : {}),
      calls,
      takeDisk,
      sender: this.sender,
      syncBothSides,
      onDirtied: onProgress,
      onWritten: (offset, length) => this.written.note(offset, length),
      laneWrite: (write, reply) => this.#writeOverLane(write, reply),
      onHeld: () => this.#lane?.onHeld(),
    });
  }

  /** Announces the bitmap and sends writers to it. After a grace period every change is marked. */
  track(limited: boolean): void {
    this.#announce();
    this.unroute(limited);
  }

  /** Marks what holds data: the set of the bulk copy. Returns the offset to go on from, or -1 when done. */
  markData(from: number, extentsMax: number): number {
    const before = this.bitmap.dirtyBlocks;
    let at = from;
    for (let extents = 0; at >= 0 && extents < extentsMax; extents++) {
      const data = this.port.nextData(at);
      if (data) this.bitmap.mark(data.offset, data.length);
      at = data ? data.offset + data.length : -1;
    }
    this.#selfMarked += this.bitmap.dirtyBlocks - before;
    return at;
  }

  /** Every change from now on comes to the replica thread, which marks it; after a grace period, `mirror` may follow. */
  route(): void {
    this.#setMode(ImageMode.routed);
  }

  /** Where writes of a lane are marked. */
  get laneMarks(): LaneMarks {
    const { buffer: bitmap, blockSize } = this.bitmap;
    return { slot: this.pinned.slot, bitmap, written: this.written.buffer, blockSize };
  }

  /** Holds every change, for as long as `enterLane` or `goOnMirroring` takes. Only in sync. */
  holdForLane(lane: ImageLane): void {
    this.#lane = lane;
    this.writer.policy = 'hold';
  }

  /**
   * Writes are mirrored by the threads that get them. Only after `holdForLane`, with nothing in flight; `useLane` follows.
   * `announcement`: unless the participants have it.
   */
  enterLane(announcement: LaneAnnouncement | undefined): void {
    assert(this.writer.policy === 'hold' && this.#lane !== undefined);
    if (announcement) this.#announce(announcement);
    this.#setMode(ImageMode.mirrored);
  }

  /** What is held, and what comes here from now on, goes over the lane, or has it left. */
  useLane(): void {
    this.writer.policy = 'lane';
  }

  /** Every change comes to this thread, which holds it; after a grace period nobody begins a write of the lane. */
  leaveLane(): void {
    this.writer.policy = 'hold';
    this.#setMode(ImageMode.routed);
  }

  /** With nothing of the lane under way: as after `mirror`. Nothing happens if somebody wants something else since. */
  goOnMirroring(): void {
    if (this.writer.policy !== 'hold' || this.#lane === undefined) return;
    this.#lane = undefined;
    this.writer.policy = 'mirror';
  }

  /** From the next change on, clean blocks stay clean. Only after `route` and a grace period. */
  mirror(): void {
    this.writer.policy = 'mirror';
    this.sendSize(true);
  }

  /** Back to marking; in the writers' own threads unless the disk is limited. Safe at any time before the fence. */
  unroute(limited: boolean): void {
    this.#lane = undefined;
    this.writer.policy = 'track';
    this.#setMode(limited ? ImageMode.routed : ImageMode.tracked);
  }

  /** Holds every change that has not begun. Only while mirroring. */
  fence(): void {
    this.#lane = undefined;
    this.writer.policy = 'hold';
  }

  /** Refuses what was held and whatever comes: another host owns the image, or may. Only after `fence`. */
  seal(): void {
    this.#setMode(ImageMode.fenced);
    this.writer.policy = 'refuse';
  }

  /** Takes the fence back; what was held goes on. */
  unfence(): void {
    this.writer.policy = 'mirror';
  }

  /** As if nothing had happened. After a grace period the bitmap may be dropped. */
  idle(): void {
    this.#lane = undefined;
    this.writer.policy = 'plain';
    this.#setMode(ImageMode.idle);
  }

  /** Drops the bitmap, after a grace period; the descriptor may be closed from here on. */
  close(): void {
    this.#size = this.size;
    this.#closed = true;
    const { table, announce } = this.#options;
    const { slot } = this.pinned;
    announce({
      type: 'bitmap',
      slot,
      epoch: table.epoch(slot),
      bitmap: null,
      written: null,
      blockSize: this.bitmap.blockSize,
    });
  }

  /** Tells the target the size if it may not know it. */
  sendSize(always: boolean): void {
    const size = this.port.size();
    if (!always && size === this.#sentSize) return;
    this.#sentSize = size;
    // Lost: the size is sent again at the beginning of each round.
    this.#options.wire.send({ kind: 'resize', image: this.index, size }, (outcome) => {
      if (outcome === 'lost') this.#sentSize = -1;
      this.#options.onProgress();
    });
  }

  /** As known last where the file cannot be looked at: it is reported whatever becomes of the disk. */
  get size(): Bytes {
    if (this.#closed) return this.#size;
    try {
      this.#size = this.port.size() as Bytes;
    } catch {
      // The stage that needs it fails, and says so.
    }
    return this.#size;
  }

  /** Bytes dirty or not acknowledged, block by block. */
  get left(): Bytes {
    return (this.bitmap.dirtyBytes + this.copier.inFlightBytes) as Bytes;
  }

  /** Exact once every change is routed. */
  get clean(): boolean {
    return this.bitmap.dirtyBlocks === 0 && this.copier.inFlightBytes === 0;
  }

  /** Blocks that became dirty since this was last asked, each counted once until it is sent. */
  takeNewlyDirty(): number {
    const seen = this.bitmap.dirtyBlocks + this.copier.clearedBlocks;
    const fresh = seen - this.#sampled - this.#selfMarked;
    this.#sampled = seen;
    this.#selfMarked = 0;
    return Math.max(0, fresh);
  }

  /** What guests have written since this was last asked; `visits` and `newBlocks` in blocks. */
  takeWrites(): { readonly bytes: number; readonly visits: number; readonly newBlocks: number } {
    const before = this.#writes;
    const { visits, blocks } = this.written;
    // The count may fall short for a moment; it is made up for at the next look.
    const bytes = Math.max(before.bytes, this.written.bytes);
    this.#writes = { bytes, visits, blocks };
    return {
      bytes: bytes - before.bytes,
      visits: (visits - before.visits) >>> 0,
      newBlocks: blocks - before.blocks,
    };
  }

  /** A write that came here although a lane has the image. */
  #writeOverLane(request: WriteRequest, reply: (result: number) => void): boolean {
    const { slot } = this.pinned;
    const { fd, offset, payload, whole = false } = request;
    const taken = this.#lane?.link.laneWrite(
      { slot, image: this.index, fd, offset, payload, whole },
      (result) => {
        request.payload = NOTHING;
        reply(result);
      },
      () => this.writer.handle(request, reply),
    );
    if (taken) request.begun = true;
    return taken ?? false;
  }

  #announce(lane?: LaneAnnouncement): void {
    const { table, announce } = this.#options;
    const { slot } = this.pinned;
    const epoch = table.epoch(slot) + 1;
    const { buffer: bitmap, blockSize } = this.bitmap;
    const written = this.written.buffer;
    announce({ type: 'bitmap', slot, epoch, bitmap, written, blockSize, ...(lane && { lane }) });
    table.setEpoch(slot, epoch);
  }

  #setMode(mode: ImageMode): void {
    this.#options.table.setMode(this.pinned.slot, mode);
  }
}

const bitmapCapacity = (size: number, blockSize: number): Bytes => {
  const wanted = Math.max(size * GROWTH_FACTOR, size + GROWTH_BYTES);
  const most = BITMAP_BYTES_MAX * BITS_PER_BYTE * blockSize;
  return bytes(Math.max(Math.min(wanted, most), size));
};
