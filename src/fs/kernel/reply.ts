import { STAGGER_BYTES } from '../../leaves/staggered-buffer.js';
import { Errno } from '../errno.js';
import { addressNumberOf, lastErrno, rawWrite, writeFrom } from '../libc.js';
import { alignedBytes } from './aligned-memory.js';
import { OUT_HEADER_BYTES } from './protocol.js';

const WRITE_OUT_BYTES = 8;

/** The length that says: nothing is to be sent now (FORGET, or a request that is answered later). */
export const NO_REPLY = 1 << 30;

/** Where the data of a reply goes. */
interface ReplyBody {
  readonly body: Uint8Array;
  readonly bodyAddress: number;
}

/** Header and body of a reply, one after the other in memory. */
class ReplyFrame implements ReplyBody {
  readonly header: Uint32Array;
  readonly body: Uint8Array;
  /** Of both. */
  readonly address: number;
  readonly bodyAddress: number;

  constructor(memory: Uint8Array, at: number, bodyBytes: number) {
    const bytes = memory.subarray(at, at + OUT_HEADER_BYTES + bodyBytes);
    this.header = new Uint32Array(memory.buffer, bytes.byteOffset, OUT_HEADER_BYTES / 4);
    this.body = bytes.subarray(OUT_HEADER_BYTES);
    this.address = addressNumberOf(bytes);
    this.bodyAddress = this.address + OUT_HEADER_BYTES;
  }
}

/** One reply buffer, used again for every reply of a thread: a `fuse_out_header`, then the body. */
export class ReplyBuffer {
  /** The body: page aligned, so that data can be read into it with O_DIRECT. */
  readonly body: Uint8Array;
  /** The body as words. */
  readonly words: Uint32Array;
  readonly #aligned: ReplyFrame;
  readonly #staggered: ReplyFrame;
  /** The next reply's. */
  #frame: ReplyFrame;

  constructor(bodyBytes: number) {
    const memory = alignedBytes(OUT_HEADER_BYTES + bodyBytes + STAGGER_BYTES, OUT_HEADER_BYTES);
    this.#aligned = new ReplyFrame(memory, 0, bodyBytes);
    this.#staggered = new ReplyFrame(memory, STAGGER_BYTES, bodyBytes);
    this.#frame = this.#aligned;
    this.body = this.#aligned.body;
    this.words = new Uint32Array(memory.buffer, this.body.byteOffset, bodyBytes >>> 2);
  }

  /** The body of the next reply, for data that is copied from page cache: faster than `body`, see `STAGGER_BYTES`. */
  staggered(): ReplyBody {
    this.#frame = this.#staggered;
    return this.#staggered;
  }

  /** `body`. */
  aligned(): ReplyBody {
    return this.#aligned;
  }

  /**
   * Sends `length` bytes of the body, or the error -errno when `length` is negative, to the descriptor that the
   * request was read from. A request that the kernel has given up meanwhile is no error.
   */
  send(fuseFd: number, uniqueLow: number, uniqueHigh: number, length: number): void {
    const total = OUT_HEADER_BYTES + Math.max(length, 0);
    const { header, address } = this.#frame;
    this.#frame = this.#aligned;
    header[0] = total;
    header[1] = Math.min(length, 0);
    header[2] = uniqueLow;
    header[3] = uniqueHigh;
    if (writeFrom(fuseFd, address, total) >= 0) return;
    const errno = lastErrno();
    if (errno === Errno.ENOENT || errno === Errno.ENODEV || errno === Errno.ECONNABORTED) return;
    throw new Error(`the kernel refuses a reply: errno ${errno}, ${length} bytes`);
  }
}

/** Answers requests that were read elsewhere, one at a time, from memory that is used again. */
export class KernelAnswer {
  readonly #words = new Uint32Array((OUT_HEADER_BYTES + WRITE_OUT_BYTES) / 4);
  readonly #bytes = new Uint8Array(this.#words.buffer);

  /**
   * `result`: what was written (`isWrite`) or 0; negative: -errno. The request counts as answered whatever happens here;
   * a mount that is gone is no error.
   */
  send(fuseFd: number, uniqueLow: number, uniqueHigh: number, result: number, isWrite = true): void {
    const words = this.#words;
    const withBody = isWrite && result >= 0;
    const total = OUT_HEADER_BYTES + (withBody ? WRITE_OUT_BYTES : 0);
    words[0] = total;
    words[1] = Math.min(result, 0);
    words[2] = uniqueLow;
    words[3] = uniqueHigh;
    words[4] = withBody ? result : 0;
    rawWrite(fuseFd, this.#bytes, total);
  }
}

const answers = new KernelAnswer();

/** Answers a request that was handed on, from the thread that has it now; see `KernelAnswer.send`. */
export const replyToKernel = (fuseFd: number, unique: bigint, result: number, isWrite: boolean): void =>
  answers.send(fuseFd, Number(unique & 0xffffffffn), Number(unique >> 32n), result, isWrite);
