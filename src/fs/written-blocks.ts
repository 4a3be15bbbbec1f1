import type { Bytes } from '../leaves/units.js';
import { countBits, maskOf, popCount } from './bits.js';

const HEADER_WORDS = 8;
/** Bytes written: a 64-bit count in two words. */
const BYTES_LOW = 0;
const BYTES_HIGH = 1;
const VISITS = 2;
const BLOCKS = 3;
/** The block that was written to last, plus 1. */
const LAST = 4;
/** One past the last word that was ever set: what lies behind need not be looked at. */
const END = 5;
const WORD = 2 ** 32;

/**
 * What guests have written to one image since its migration began, in shared memory: how much, to how many blocks, and
 * to which. Whoever performs a write counts it; nothing is ever taken back. Estimates are made from it, so a write past
 * the capacity counts its bytes only.
 */
export class WrittenBlocks {
  readonly buffer: SharedArrayBuffer;
  readonly #blockSize: number;
  readonly #header: Int32Array;
  readonly #words: Int32Array;

  constructor(buffer: SharedArrayBuffer, blockSize: Bytes) {
    this.buffer = buffer;
    this.#blockSize = blockSize;
    this.#header = new Int32Array(buffer, 0, HEADER_WORDS);
    this.#words = new Int32Array(buffer, HEADER_WORDS * 4);
  }

  /** Takes address space for `capacity` bytes of image; the kernel gives memory only to the words that are used. */
  static allocate(capacity: Bytes, blockSize: Bytes): WrittenBlocks {
    const words = Math.ceil(Math.ceil(capacity / blockSize) / 32);
    return new WrittenBlocks(new SharedArrayBuffer((HEADER_WORDS + words) * 4), blockSize);
  }

  /** `length` bytes were written at `offset`. */
  note(offset: number, length: number): void {
    if (length <= 0) return;
    const before = Atomics.add(this.#header, BYTES_LOW, length | 0) >>> 0;
    if (before + length >= WORD) Atomics.add(this.#header, BYTES_HIGH, 1);
    const from = Math.floor(offset / this.#blockSize);
    const to = Math.floor((offset + length - 1) / this.#blockSize) + 1;
    // A sequential writer goes through a block in many small steps. A race miscounts a visit, no more.
    if (to === from + 1 && this.#header[LAST] === to) return;
    this.#header[LAST] = to;
    Atomics.add(this.#header, VISITS, to - from);
    this.#set(from, Math.min(to, this.#words.length * 32));
  }

  /** Exact while nobody writes; while the low word wraps it may be 4 GiB short. */
  get bytes(): number {
    const high = Atomics.load(this.#header, BYTES_HIGH);
    return high * WORD + (Atomics.load(this.#header, BYTES_LOW) >>> 0);
  }

  /** Blocks written to, each as often as it was, modulo 2^32; writes in a row to one block count once. */
  get visits(): number {
    return Atomics.load(this.#header, VISITS) >>> 0;
  }

  /** Blocks written to, each once. */
  get blocks(): number {
    return Atomics.load(this.#header, BLOCKS);
  }

  /** Of the blocks `from` to `to` (exclusive), those that were written to. */
  blocksIn(from: number, to: number): number {
    return countBits(this.#words, from, Math.min(to, Atomics.load(this.#header, END) * 32));
  }

  #set(from: number, to: number): void {
    let fresh = 0;
    for (let block = from; block < to; ) {
      const bit = block & 31;
      const next = Math.min(32, bit + (to - block));
      const mask = maskOf(bit, next);
      // Most writes hit what was written before; looking is cheaper than an atomic change.
      if ((this.#words[block >>> 5]! & mask) !== mask)
        fresh += popCount(mask & ~Atomics.or(this.#words, block >>> 5, mask));
      block += next - bit;
    }
    if (fresh === 0) return;
    Atomics.add(this.#header, BLOCKS, fresh);
    const end = ((to - 1) >>> 5) + 1;
    let known = Atomics.load(this.#header, END);
    while (known < end) {
      const seen = Atomics.compareExchange(this.#header, END, known, end);
      if (seen === known) return;
      known = seen;
    }
  }
}
