import { close, getdents64, lseek, SEEK_SET } from '../libc.js';

const BUFFER_BYTES = 32 * 1024;
const HEADER_BYTES = 19;
/** Buffers that nobody needs and that are kept. */
const SPARE_MAX = 16;

/** What getdents64(2) gives. */
class EntryBuffer {
  readonly bytes = Buffer.alloc(BUFFER_BYTES);
  readonly view = new DataView(this.bytes.buffer, this.bytes.byteOffset, BUFFER_BYTES);
}

/** Buffers come and go with every directory that is listed: they are used again. */
class EntryBuffers {
  readonly #spare: EntryBuffer[] = [];

  take(): EntryBuffer {
    return this.#spare.pop() ?? new EntryBuffer();
  }

  giveBack(buffer: EntryBuffer): void {
    if (this.#spare.length < SPARE_MAX) this.#spare.push(buffer);
  }
}

/**
 * One open directory. Cookies are the backing file system's own, as 64 raw bits: 0 is the start, and the cookie of
 * an entry is the position after it.
 */
export class DirectoryReader {
  readonly fd: number;
  readonly #buffers: EntryBuffers;
  /** While entries in it are wanted. */
  #buffer: EntryBuffer | undefined;
  #at = 0;
  #end = 0;
  /** The cookie that reading on from `#at` answers. */
  #low = 0;
  #high = 0;

  constructor(fd: number, buffers: EntryBuffers) {
    this.fd = fd;
    this.#buffers = buffers;
  }

  /** Goes to where the cookie points; 0 or -errno. */
  seek(low: number, high: number): number {
    if (low === this.#low && high === this.#high && (low !== 0 || high !== 0)) return 0;
    this.#at = 0;
    this.#end = 0;
    this.#low = low;
    this.#high = high;
    const result = lseek(this.fd, (BigInt(high) << 32n) | BigInt(low), SEEK_SET);
    // ext4's cookies have 63 bits, which come back as a bigint.
    return result < 0 ? Number(result) : 0;
  }

  /** Makes the next entry current; 1, 0 at the end, or -errno. */
  next(): number {
    if (this.#at < this.#end) return 1;
    this.#buffer ??= this.#buffers.take();
    const length = getdents64(this.fd, this.#buffer.bytes, BUFFER_BYTES);
    if (length <= 0) {
      this.drop();
      return length;
    }
    this.#at = 0;
    this.#end = length;
    return 1;
  }

  /** Nothing of what it has read is wanted. */
  drop(): void {
    if (this.#buffer) this.#buffers.giveBack(this.#buffer);
    this.#buffer = undefined;
  }

  get #view(): DataView {
    return this.#buffer!.view;
  }

  get inodeLow(): number {
    return this.#view.getUint32(this.#at, true);
  }
  get inodeHigh(): number {
    return this.#view.getUint32(this.#at + 4, true);
  }
  get cookieLow(): number {
    return this.#view.getUint32(this.#at + 8, true);
  }
  get cookieHigh(): number {
    return this.#view.getUint32(this.#at + 12, true);
  }
  /** DT_*. */
  get type(): number {
    return this.#buffer!.bytes[this.#at + 18]!;
  }
  /** With its NUL. */
  get name(): Uint8Array {
    const start = this.#at + HEADER_BYTES;
    const { bytes } = this.#buffer!;
    return bytes.subarray(start, bytes.indexOf(0, start) + 1);
  }

  /** Takes the current entry. */
  shift(): void {
    this.#low = this.cookieLow;
    this.#high = this.cookieHigh;
    this.#at += this.#view.getUint16(this.#at + 16, true);
  }
}

/** Open directories by handle. */
export class DirectoryHandles {
  readonly #readers = new Map<number, DirectoryReader>();
  readonly #buffers = new EntryBuffers();
  #next = 1;

  get size(): number {
    return this.#readers.size;
  }

  open(fd: number): number {
    const handle = this.#next++;
    this.#readers.set(handle, new DirectoryReader(fd, this.#buffers));
    return handle;
  }

  get(handle: number): DirectoryReader {
    const reader = this.#readers.get(handle);
    if (!reader) throw new Error(`the kernel names directory handle ${handle}, which is not open`);
    return reader;
  }

  release(handle: number): void {
    const reader = this.get(handle);
    reader.drop();
    close(reader.fd);
    this.#readers.delete(handle);
  }

  close(): void {
    for (const handle of [...this.#readers.keys()]) this.release(handle);
  }
}
