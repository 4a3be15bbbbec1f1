import { Errno } from '../errno.js';
import { lastErrno, rawWrite } from '../libc.js';
import { alignedBytes } from './aligned-memory.js';
import { OUT_HEADER_BYTES } from './protocol.js';

const WRITE_OUT_BYTES = 8;

/** The length that says: nothing is to be sent now (FORGET, or a request that is answered later). */
export const NO_REPLY = 1 << 30;

/**
 * One reply buffer, used again for every reply of a thread: a `fuse_out_header`, then the body, which is page aligned
 * so that data can be read into it with O_DIRECT.
 */
export class ReplyBuffer {
  /** The body. */
  readonly body: Uint8Array;
  /** The body as words. */
  readonly words: Uint32Array;
  readonly #bytes: Uint8Array;
  readonly #header: Uint32Array;

  constructor(bodyBytes: number) {
    this.#bytes = alignedBytes(OUT_HEADER_BYTES + bodyBytes, OUT_HEADER_BYTES);
    const { buffer, byteOffset } = this.#bytes;
    this.#header = new Uint32Array(buffer, byteOffset, OUT_HEADER_BYTES / 4);
    this.body = this.#bytes.subarray(OUT_HEADER_BYTES);
    this.words = new Uint32Array(buffer, byteOffset + OUT_HEADER_BYTES, bodyBytes >>> 2);
  }

  /**
   * Sends `length` bytes of the body, or the error -errno when `length` is negative, to the descriptor that the
   * request was read from. A request that the kernel has given up meanwhile is no error.
   */
  send(fuseFd: number, uniqueLow: number, uniqueHigh: number, length: number): void {
    const total = OUT_HEADER_BYTES + Math.max(length, 0);
    const header = this.#header;
    header[0] = total;
    header[1] = Math.min(length, 0);
    header[2] = uniqueLow;
    header[3] = uniqueHigh;
    if (rawWrite(fuseFd, this.#bytes, total) >= 0) return;
    const errno = lastErrno();
    if (errno === Errno.ENOENT || errno === Errno.ENODEV || errno === Errno.ECONNABORTED) return;
    throw new Error(`the kernel refuses a reply: errno ${errno}, ${length} bytes`);
  }
}

/**
 * Answers a routed request from the replica thread. `result`: bytes written (`isWrite`) or 0; negative: -errno.
 * The request counts as answered whatever happens here; a mount that is gone is no error.
 */
export const replyToKernel = (fuseFd: number, unique: bigint, result: number, isWrite: boolean): void => {
  const withBody = isWrite && result >= 0;
  const reply = new Uint32Array((OUT_HEADER_BYTES + WRITE_OUT_BYTES) / 4);
  const total = OUT_HEADER_BYTES + (withBody ? WRITE_OUT_BYTES : 0);
  reply[0] = total;
  reply[1] = Math.min(result, 0);
  reply[2] = Number(unique & 0xffffffffn);
  reply[3] = Number(unique >> 32n);
  reply[4] = withBody ? result : 0;
  rawWrite(fuseFd, new Uint8Array(reply.buffer), total);
};
