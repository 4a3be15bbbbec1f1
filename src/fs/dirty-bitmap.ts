import assert from 'node:assert/strict';
import { BLOCK_SIZE_DEFAULT, BLOCK_SIZE_MAX, BLOCK_SIZE_MIN } from '../leaves/daemon-options.js';
import type { BlockIndex, Bytes } from '../leaves/units.js';
import { bytes, GiB } from '../leaves/units.js';
import { countBits, maskOf, popCount } from './bits.js';

/** Up to this size an image gets the finest blocks: a MiB of bits. */
const FINEST_BYTES_MAX = 32 * GiB;

const HEADER_WORDS = 4;
const WORD_COUNT = 0;
const WORD_OVERFLOW = 1;
/** One past the last word that was ever marked: what lies behind need not be looked at. */
const WORD_END = 2;

/**
 * What one bit covers where nobody has said so, from 4 KiB for small images to 64 KiB: guests write at random in pieces
 * of 4 KiB, and with blocks of 64 KiB each of them has 16 times as much sent again.
 */
export const blockSizeFor = (size: number): Bytes => {
  let blockSize: number = BLOCK_SIZE_MIN;
  while (blockSize < BLOCK_SIZE_DEFAULT && size / blockSize > FINEST_BYTES_MAX / BLOCK_SIZE_MIN)
    blockSize *= 2;
  return bytes(blockSize);
};

/**
 * One bit per block of one image, in shared memory: data workers mark, the copier clears.
 *
 * The order that never loses an update: a writer does pwrite, then `mark`, then replies; the copier does `clear`,
 * then reads, then sends. Every change is atomic, so a write that overlaps a read leaves its bit set.
 * A write past the capacity cannot be tracked and raises `overflowed`, which fails the migration, never the write.
 */
export class DirtyBitmap {
  readonly buffer: SharedArrayBuffer;
  readonly blockSize: Bytes;
  readonly #header: Int32Array;
  readonly #words: Int32Array;
  readonly #shift: number;

  constructor(buffer: SharedArrayBuffer, blockSize: Bytes) {
    assert(
      blockSize >= BLOCK_SIZE_MIN && blockSize <= BLOCK_SIZE_MAX && Number.isInteger(Math.log2(blockSize)),
    );
    this.buffer = buffer;
    this.blockSize = blockSize;
    this.#header = new Int32Array(buffer, 0, HEADER_WORDS);
    this.#words = new Int32Array(buffer, HEADER_WORDS * 4);
    this.#shift = Math.log2(blockSize);
  }

  /** Takes address space for `capacity` bytes of image; the kernel gives memory only to the words that are used. */
  static allocate(capacity: Bytes, blockSize: Bytes = BLOCK_SIZE_DEFAULT): DirtyBitmap {
    const words = Math.ceil(Math.ceil(capacity / blockSize) / 32);
    return new DirtyBitmap(new SharedArrayBuffer((HEADER_WORDS + words) * 4), blockSize);
  }

  /** Blocks this bitmap can track. */
  get capacity(): number {
    return this.#words.length * 32;
  }

  /** Blocks marked now. Exact while no mark or clear is under way; `recount` proves it. */
  get dirtyBlocks(): number {
    return Atomics.load(this.#header, WORD_COUNT);
  }

  get overflowed(): boolean {
    return Atomics.load(this.#header, WORD_OVERFLOW) !== 0;
  }

  /** Marks every block that the extent touches. A length of 0 marks nothing. */
  mark(offset: number, length: number): void {
    if (length <= 0) return;
    const blockSize = this.blockSize;
    this.#change(Math.floor(offset / blockSize), Math.floor((offset + length - 1) / blockSize) + 1, true);
  }

  /** Clears blocks `from` to `to` (exclusive); returns how many were dirty. */
  clear(from: BlockIndex, to: BlockIndex): number {
    return this.#change(from, to, false);
  }

  /** The first dirty block at or after `from`, or -1. */
  nextDirty(from: number): number {
    const words = this.#words;
    const end = Atomics.load(this.#header, WORD_END);
    let index = from >>> 5;
    if (index >= end) return -1;
    let word = words[index]! & (-1 << (from & 31));
    while (word === 0) {
      if (++index >= end) return -1;
      word = words[index]!;
    }
    return index * 32 + (31 - Math.clz32(word & -word));
  }

  /** The end (exclusive) of the run of dirty blocks that starts at `from`, at most `from + limit`. */
  runEnd(from: number, limit: number): BlockIndex {
    const words = this.#words;
    const end = Math.min(from + limit, this.capacity);
    let block = from;
    while (block < end && (words[block >>> 5]! & (1 << (block & 31))) !== 0) block++;
    return block as BlockIndex;
  }

  /** Whether every block the extent touches is dirty. */
  allDirty(offset: number, length: number): boolean {
    const from = Math.floor(offset / this.blockSize);
    const to = Math.floor((offset + Math.max(length, 1) - 1) / this.blockSize) + 1;
    return to <= this.capacity && this.runEnd(from, to - from) === to;
  }

  /** Counts the set bits one by one: what `dirtyBlocks` must be when nothing is under way. */
  recount(): number {
    return this.dirtyIn(0, this.capacity);
  }

  /** Dirty blocks from `from` to `to` (exclusive), counted one by one. */
  dirtyIn(from: number, to: number): number {
    return countBits(this.#words, from, Math.min(to, Atomics.load(this.#header, WORD_END) * 32));
  }

  /** Bytes covered by the dirty blocks. Their count is below 0 while what is being marked is cleared already. */
  get dirtyBytes(): Bytes {
    return (Math.max(0, this.dirtyBlocks) * 2 ** this.#shift) as Bytes;
  }

  /** Before the bits are set, so that nobody who sees their count overlooks them. */
  #extendTo(end: number): void {
    let known = Atomics.load(this.#header, WORD_END);
    while (known < end) {
      const seen = Atomics.compareExchange(this.#header, WORD_END, known, end);
      if (seen === known) return;
      known = seen;
    }
  }

  #change(from: number, to: number, set: boolean): number {
    const words = this.#words;
    let changed = 0;
    let block = from;
    const end = Math.min(to, this.capacity);
    if (set && to > this.capacity) Atomics.store(this.#header, WORD_OVERFLOW, 1);
    if (set && block < end) this.#extendTo(((end - 1) >>> 5) + 1);
    while (block < end) {
      const bit = block & 31;
      const next = Math.min(32, bit + (end - block));
      const mask = maskOf(bit, next);
      if (set) changed += popCount(mask & ~Atomics.or(words, block >>> 5, mask));
      else changed += popCount(mask & Atomics.and(words, block >>> 5, ~mask));
      block += next - bit;
    }
    if (changed !== 0) Atomics.add(this.#header, WORD_COUNT, set ? changed : -changed);
    return changed;
  }
}
