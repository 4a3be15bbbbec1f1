import type { Bytes } from '../../leaves/units.js';

/** Buffers of one size, reused; holds at most as many as were ever in use at once. */
export class BufferPool {
  readonly size: Bytes;
  readonly #free: Buffer[] = [];

  constructor(size: Bytes) {
    this.size = size;
  }

  take(): Buffer {
    return this.#free.pop() ?? Buffer.allocUnsafeSlow(this.size);
  }

  give(buffer: Buffer): void {
    this.#free.push(buffer);
  }
}
