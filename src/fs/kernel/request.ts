import { IN_HEADER_BYTES } from './protocol.js';

const HIGH = 2 ** 32;

/** A request in the memory of a ring; valid until the record is shifted. Argument fields are read by word index. */
export class RequestView {
  fuseFd = -1;
  #words: Uint32Array;
  #bytes: Uint8Array;
  /** Byte index of the in-header. */
  #at = 0;
  #base = 0;

  constructor() {
    this.#words = new Uint32Array(0);
    this.#bytes = new Uint8Array(0);
  }

  /** Points the view at the record at byte index `at` (a multiple of 8) that was read from `fuseFd`. */
  set(words: Uint32Array, bytes: Uint8Array, at: number, fuseFd: number): void {
    this.#words = words;
    this.#bytes = bytes;
    this.#at = at;
    this.#base = at >>> 2;
    this.fuseFd = fuseFd;
  }

  /** A view of a copy, for a request that is answered later. */
  clone(): RequestView {
    const copy = Uint8Array.from(this.#bytes.subarray(this.#at, this.#at + this.length));
    const view = new RequestView();
    view.set(new Uint32Array(copy.buffer), copy, 0, this.fuseFd);
    return view;
  }

  /** Bytes, header included. */
  get length(): number {
    return this.#words[this.#base]!;
  }
  get opcode(): number {
    return this.#words[this.#base + 1]!;
  }
  get uniqueLow(): number {
    return this.#words[this.#base + 2]!;
  }
  get uniqueHigh(): number {
    return this.#words[this.#base + 3]!;
  }
  get nodeId(): number {
    return this.u64(4);
  }
  get uid(): number {
    return this.#words[this.#base + 6]!;
  }
  get gid(): number {
    return this.#words[this.#base + 7]!;
  }

  /** The 32-bit word at word index `at` of the request; arguments begin at 10. */
  u32(at: number): number {
    return this.#words[this.#base + at]!;
  }
  u64(at: number): number {
    return this.#words[this.#base + at + 1]! * HIGH + this.#words[this.#base + at]!;
  }

  /** A name that begins `offset` bytes into the argument, its NUL included. */
  name(offset: number): Uint8Array {
    const start = this.#at + IN_HEADER_BYTES + offset;
    const end = this.#bytes.indexOf(0, start);
    return this.#bytes.subarray(start, end + 1);
  }

  /** `length` bytes that begin `offset` bytes into the argument. */
  data(offset: number, length: number): Uint8Array {
    const start = this.#at + IN_HEADER_BYTES + offset;
    return this.#bytes.subarray(start, start + length);
  }
}
