import type { DirtyBitmap } from '../../fs/dirty-bitmap.js';
import type { BlockIndex, Bytes } from '../../leaves/units.js';
import { blockIndex, bytes, KiB } from '../../leaves/units.js';
import type { ExtentLocks } from '../extent-locks.js';
import type { BufferPool } from './buffer-pool.js';
import type { BulkPort, ImagePort, Outcome, Segment, TransferCounters, WirePort } from './ports.js';
import { runParts } from './run-parts.js';

/** Neighbouring dirty blocks travel together up to this size (a block larger than it travels alone). */
export const EXTENT_BYTES_MAX = bytes(512 * KiB);

/** Zeroes among data are looked for in pieces that are not smaller: each that is found is one frame more. */
const ZERO_PIECE_BYTES_MIN = bytes(64 * KiB);

export interface CopierOptions {
  /** Number of the image within its group. */
  readonly image: number;
  readonly bitmap: DirtyBitmap;
  readonly port: ImagePort;
  readonly wire: WirePort;
  readonly locks: ExtentLocks;
  readonly buffers: BufferPool;
  readonly counters: TransferCounters;
  /** Called when an extent is settled, so that the window and the end of the phase can be looked at again. */
  readonly onSettled: (bytes: number, outcome: Outcome) => void;
}

/** A run of dirty blocks, `from` inclusive, `to` exclusive. */
export interface BlockRun {
  readonly from: BlockIndex;
  readonly to: BlockIndex;
}

/** The next run of dirty blocks at or after `cursor` that makes one extent; undefined at the end of the bitmap. */
export const nextRun = (bitmap: DirtyBitmap, cursor: number, extentBytes: number): BlockRun | undefined => {
  const from = bitmap.nextDirty(cursor);
  if (from < 0) return undefined;
  const blocks = Math.max(1, Math.floor(extentBytes / bitmap.blockSize));
  return { from: blockIndex(from), to: bitmap.runEnd(from, blocks) };
};

/**
 * Moves dirty blocks of one image to the target.
 *
 * The order that never loses an update: clear the bits, then look at the file, then read, then send; whatever is
 * written meanwhile is marked again by its writer. From the clear until the frames are queued the extent is locked, so
 * that a mirrored write to it is sent either before it was read or after what was read, and so that what was read
 * first of blocks that became dirty again is sent first. Blocks that the target has not acknowledged when the
 * connection breaks are marked again.
 */
export class Copier {
  readonly #options: CopierOptions;
  #inFlightBytes = 0;
  #cleared = 0;

  constructor(options: CopierOptions) {
    this.#options = options;
  }

  /** Bytes of extents whose bits are cleared and that the target has not acknowledged. */
  get inFlightBytes(): Bytes {
    return this.#inFlightBytes as Bytes;
  }

  /** Blocks cleared since the beginning. */
  get clearedBlocks(): number {
    return this.#cleared;
  }

  /** Another thread reads and sends. */
  get inBulk(): boolean {
    const { wire, port } = this.#options;
    return !!wire.bulk && port.fd !== undefined;
  }

  /** Copies runs of one batch. Resolves, and rejects, as `copy`, once nothing of the image is read any more. */
  async copyBatch(runs: readonly BlockRun[]): Promise<number> {
    const { wire, port } = this.#options;
    if (wire.bulk && port.fd !== undefined) return this.#copyInBulk(wire.bulk, port.fd, runs);
    const copies = runs.map((run) => this.copy(run));
    await Promise.allSettled(copies);
    return (await Promise.all(copies)).reduce((sum, sent) => sum + sent, 0);
  }

  /**
   * Copies one run; resolves with the payload bytes sent once its frames are queued. Everything up to the read happens
   * before it returns when the extent is not locked. Errors: what `port` throws; the run is dirty again then.
   */
  async copy({ from, to }: BlockRun): Promise<number> {
    const { bitmap, locks } = this.#options;
    const offset = from * bitmap.blockSize;
    const length = (to - from) * bitmap.blockSize;
    const asked = locks.acquire(offset, length, 'exclusive');
    const lock = asked instanceof Promise ? await asked : asked;
    this.#inFlightBytes += length;
    try {
      this.#cleared += bitmap.clear(from, to);
      return await this.#transfer(offset, length);
    } catch (error) {
      this.#settle(offset, length, 'lost');
      throw error;
    } finally {
      locks.release(lock);
    }
  }

  async #transfer(offset: number, length: number): Promise<number> {
    const { port, wire, buffers, image, counters } = this.#options;
    const segments = port.segments(offset, length);
    const buffer = segments.some((segment) => segment.data) ? buffers.take(length) : null;
    let parts: Segment[];
    try {
      parts = buffer ? await this.#read(buffer, offset, segments) : segments;
    } catch (error) {
      if (buffer) buffers.give(buffer);
      throw error;
    }
    if (!wire.open) {
      if (buffer) buffers.give(buffer);
      this.#settle(offset, length, 'lost');
      return 0;
    }
    let unsettled = parts.length;
    let worst: Outcome = 'acked';
    let payloadBytes = 0;
    for (const part of parts) {
      const sentBytes = part.data ? part.length : 0;
      payloadBytes += sentBytes;
      const settled = (outcome: Outcome): void => {
        if (outcome === 'lost') worst = 'lost';
        else counters.acked(sentBytes);
        if (--unsettled > 0) return;
        if (buffer && worst === 'acked') buffers.give(buffer);
        this.#settle(offset, length, worst);
      };
      if (part.data) {
        const payload = buffer!.subarray(part.offset - offset, part.offset - offset + part.length);
        wire.send({ kind: 'data', image, offset: part.offset, payload, mirror: false }, settled);
      } else {
        wire.send({ kind: 'hole', image, offset: part.offset, length: part.length }, settled);
      }
    }
    counters.sent(payloadBytes, 'copy');
    return payloadBytes;
  }

  /** Without locks: nothing is mirrored meanwhile, and one thread reads and sends everything in the order given. */
  async #copyInBulk(bulk: BulkPort, fd: number, blocks: readonly BlockRun[]): Promise<number> {
    const { image, bitmap, counters } = this.#options;
    const runs = new Float64Array(blocks.length * 2);
    blocks.forEach(({ from, to }, i) => {
      const length = (to - from) * bitmap.blockSize;
      runs[2 * i] = from * bitmap.blockSize;
      runs[2 * i + 1] = length;
      this.#inFlightBytes += length;
      this.#cleared += bitmap.clear(from, to);
    });
    let settled = 0;
    const settle = (outcome: Outcome, count: number): void => {
      let bytes = 0;
      for (const end = settled + count; settled < end; settled++) {
        bytes += runs[2 * settled + 1]!;
        if (outcome === 'lost') bitmap.mark(runs[2 * settled]!, runs[2 * settled + 1]!);
      }
      this.#settled(bytes, outcome);
    };
    try {
      const sent = await bulk.copy({ image, fd, runs, piece: this.#piece }, (outcome, count, bytes) => {
        if (outcome === 'acked') counters.acked(bytes);
        settle(outcome, count);
      });
      counters.sent(sent, 'copy');
      return sent;
    } catch (error) {
      settle('lost', blocks.length - settled);
      throw error;
    }
  }

  /** Reads the data segments to their places in `buffer`; what turns out to be zero, or gone, becomes a hole. */
  async #read(buffer: Buffer, offset: number, segments: readonly Segment[]): Promise<Segment[]> {
    const { port } = this.#options;
    const reads = segments.map((segment) => {
      if (!segment.data) return 0;
      const at = segment.offset - offset;
      return port.read(buffer.subarray(at, at + segment.length), segment.offset);
    });
    return runParts(buffer, offset, segments, await Promise.all(reads), this.#piece);
  }

  get #piece(): number {
    return Math.max(this.#options.bitmap.blockSize, ZERO_PIECE_BYTES_MIN);
  }

  #settle(offset: number, length: number, outcome: Outcome): void {
    if (outcome === 'lost') this.#options.bitmap.mark(offset, length);
    this.#settled(length, outcome);
  }

  #settled(length: number, outcome: Outcome): void {
    this.#inFlightBytes -= length;
    this.#options.onSettled(length, outcome);
  }
}
