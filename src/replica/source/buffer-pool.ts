import { staggeredBuffer } from '../../leaves/staggered-buffer.js';
import { bytes, KiB, MiB } from '../../leaves/units.js';

const BUFFER_BYTES_MIN = bytes(4 * KiB);
/** What is kept for later; more is used only in bursts. What is taken is bounded by the windows of those who take. */
const FREE_BYTES_MAX = bytes(32 * MiB);

/** Buffers in powers of two, reused: what is taken is at most twice what was asked for. */
export class BufferPool {
  readonly #free = new Map<number, Buffer[]>();
  #freeBytes = 0;

  /** A buffer of at least `length` bytes, with any content. */
  take(length: number): Buffer {
    const size = sizeFor(length);
    const buffer = this.#free.get(size)?.pop();
    if (!buffer) return staggeredBuffer(size);
    this.#freeBytes -= size;
    return buffer;
  }

  /** Takes back what `take` gave, whole. */
  give(buffer: Buffer): void {
    const size = buffer.length;
    if (this.#freeBytes + size > FREE_BYTES_MAX) return;
    this.#freeBytes += size;
    const free = this.#free.get(size);
    if (free) free.push(buffer);
    else this.#free.set(size, [buffer]);
  }

  /** Bytes kept for later. */
  get freeBytes(): number {
    return this.#freeBytes;
  }

  /** Lets go of everything that is kept. */
  clear(): void {
    this.#free.clear();
    this.#freeBytes = 0;
  }
}

const sizeFor = (length: number): number =>
  Math.max(BUFFER_BYTES_MIN, 2 ** Math.ceil(Math.log2(Math.max(length, 1))));
