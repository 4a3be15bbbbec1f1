import assert from 'node:assert/strict';

const HEAD = 0; // bytes taken, wraps at 2^32
const TAIL = 16; // bytes put, wraps at 2^32; on its own cache line
const HEADER_BYTES = 128;
const RING_BYTES = 1024 * 1024;
const RECORD_HEADER_BYTES = 8;
/** A record that says: the next one is at the start of the ring. */
const SKIP = 0xffffffff;

/** A request larger than this does not go through the ring. */
export const RING_RECORD_BYTES_MAX = RING_BYTES / 4;

const align8 = (length: number): number => (length + 7) & ~7;

/** Requests on their way from one data worker to the owner of the namespace: one producer, one consumer. */
export class RequestRing {
  readonly buffer: SharedArrayBuffer;
  /** What a consumer reads records from. */
  readonly bytes: Uint8Array;
  readonly words: Uint32Array;
  readonly #positions: Int32Array;

  constructor(buffer = new SharedArrayBuffer(HEADER_BYTES + RING_BYTES)) {
    this.buffer = buffer;
    this.#positions = new Int32Array(buffer, 0, HEADER_BYTES / 4);
    this.bytes = new Uint8Array(buffer, HEADER_BYTES);
    this.words = new Uint32Array(buffer, HEADER_BYTES);
  }

  /** Producer: puts `length` bytes of `record`; false when there is no room, and nothing was put. */
  push(record: Uint8Array, length: number): boolean {
    assert(length <= RING_RECORD_BYTES_MAX, `record of ${length} bytes`);
    const head = Atomics.load(this.#positions, HEAD) >>> 0;
    const tail = this.#positions[TAIL]! >>> 0;
    const needed = RECORD_HEADER_BYTES + align8(length);
    let at = tail % RING_BYTES;
    const skipped = at + needed > RING_BYTES ? RING_BYTES - at : 0;
    if (((tail - head) >>> 0) + skipped + needed > RING_BYTES) return false;
    if (skipped > 0) {
      this.words[at >>> 2] = SKIP;
      at = 0;
    }
    this.words[at >>> 2] = length;
    this.bytes.set(record.subarray(0, length), at + RECORD_HEADER_BYTES);
    Atomics.store(this.#positions, TAIL, (tail + skipped + needed) | 0);
    return true;
  }

  /** Producer: waits, at most `timeout` milliseconds, until the consumer has taken something. */
  waitForRoom(timeout: number): void {
    const head = Atomics.load(this.#positions, HEAD);
    const used = (Atomics.load(this.#positions, TAIL) - head) >>> 0;
    if (used >= RING_RECORD_BYTES_MAX) Atomics.wait(this.#positions, HEAD, head, timeout);
  }

  /** Consumer: byte index in `bytes` of the oldest record, or -1. Its memory stays valid until `shift`. */
  peek(): number {
    const tail = Atomics.load(this.#positions, TAIL);
    let head = this.#positions[HEAD]!;
    if (head === tail) return -1;
    let at = (head >>> 0) % RING_BYTES;
    if (this.words[at >>> 2] === SKIP) {
      head = (head + RING_BYTES - at) | 0;
      Atomics.store(this.#positions, HEAD, head);
      at = 0;
    }
    return at + RECORD_HEADER_BYTES;
  }

  /** Consumer: drops the record that `peek` gave. */
  shift(): void {
    const head = this.#positions[HEAD]!;
    const length = this.words[((head >>> 0) % RING_BYTES) >>> 2]!;
    Atomics.store(this.#positions, HEAD, (head + RECORD_HEADER_BYTES + align8(length)) | 0);
    Atomics.notify(this.#positions, HEAD);
  }
}
