const BYTES = 0;
const MIRRORED = 1;
const CHANGES = 2;
const WORDS = 3;

/** What a stream's thread has applied, in shared memory; each modulo 2^32, and read before it can have come round. */
export class StreamCounters {
  readonly buffer: SharedArrayBuffer;
  readonly #words: Int32Array;

  constructor(buffer = new SharedArrayBuffer(WORDS * 4)) {
    this.buffer = buffer;
    this.#words = new Int32Array(buffer);
  }

  /** A change with `length` bytes of payload. */
  add(length: number, mirror: boolean): void {
    Atomics.add(this.#words, CHANGES, 1);
    Atomics.add(this.#words, BYTES, length);
    if (mirror) Atomics.add(this.#words, MIRRORED, length);
  }

  /** Payload bytes. */
  get bytes(): number {
    return Atomics.load(this.#words, BYTES) >>> 0;
  }

  /** Of these, of guests' writes. */
  get mirrored(): number {
    return Atomics.load(this.#words, MIRRORED) >>> 0;
  }

  get changes(): number {
    return Atomics.load(this.#words, CHANGES) >>> 0;
  }
}
