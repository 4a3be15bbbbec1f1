import { read as readFile } from 'node:fs';
import { Errno, errnoName } from '../../fs/errno.js';
import { lseek, pread, SEEK_DATA, SEEK_HOLE } from '../../fs/libc.js';
import { StatBuffer } from '../../fs/stat-buffer.js';
import { MigrateFsError } from '../../leaves/errors.js';
import type { ImagePort, Segment } from './ports.js';

/** Milliseconds that a place of data is known for. */
const DATA_KNOWN = 1000;

/** A backing file as the copier sees it. Nobody else moves the file offset of `fd`. */
export class FileImage implements ImagePort {
  readonly fd: number;
  readonly #name: string;
  readonly #stat = new StatBuffer();
  /**
   * Where data was found last. Asking where it ends costs a walk through all of it on some file systems (tmpfs), so
   * that is not asked again for each extent, but after a while: what has become a hole meanwhile reads as zeroes, and those
   * that are no whole piece would be sent, and take space on the target.
   */
  #data = { from: 0, to: 0, until: 0 };
  readonly #now: () => number;

  /** `now`: milliseconds. */
  constructor(fd: number, name: string, now = () => performance.now()) {
    this.fd = fd;
    this.#name = name;
    this.#now = now;
  }

  /** INTERNAL: the file cannot be looked at. */
  size(): number {
    const result = this.#stat.ofDescriptor(this.fd);
    if (result < 0) throw this.#error('stat', result);
    return this.#stat.size;
  }

  nextData(offset: number): { offset: number; length: number } | null {
    const end = Number.MAX_SAFE_INTEGER;
    const data = this.#seek(offset, SEEK_DATA, end);
    if (data === end) return null;
    const hole = this.#seek(data, SEEK_HOLE, end);
    // Cut meanwhile: what is left is found by the next look.
    return hole > data ? { offset: data, length: hole - data } : null;
  }

  segments(offset: number, length: number): Segment[] {
    const end = offset + length;
    const segments: Segment[] = [];
    const now = this.#now();
    if (now >= this.#data.until) this.#data = { from: 0, to: 0, until: 0 };
    for (let at = offset; at < end; ) {
      if (at < this.#data.from || at >= this.#data.to) {
        const from = this.#seek(at, SEEK_DATA, end);
        if (from > at) segments.push({ offset: at, length: from - at, data: false });
        if (from === end) break;
        at = from;
        // Empty when the file was cut between the two looks: the next look finds the rest a hole.
        const to = this.#seek(from, SEEK_HOLE, Number.MAX_SAFE_INTEGER);
        this.#data = { from, to, until: now + DATA_KNOWN };
      }
      const to = Math.min(this.#data.to, end);
      if (to > at) segments.push({ offset: at, length: to - at, data: true });
      at = Math.max(at, to);
    }
    return segments;
  }

  read(into: Uint8Array, offset: number): Promise<number> {
    return new Promise((resolve, reject) => {
      let filled = 0;
      const next = (): void => {
        readFile(this.fd, into, filled, into.length - filled, offset + filled, (error, count) => {
          if (error) return reject(this.#error('read', error.errno ?? -Errno.EIO));
          filled += count;
          if (count === 0 || filled === into.length) resolve(filled);
          else next();
        });
      };
      next();
    });
  }

  /** The same in the thread that calls. INTERNAL: the file cannot be read. */
  readNow(into: Uint8Array, offset: number): number {
    let filled = 0;
    while (filled < into.length) {
      const count = pread(this.fd, into.subarray(filled), into.length - filled, offset + filled);
      if (count === -Errno.EINTR) continue;
      if (count < 0) throw this.#error('read', count);
      if (count === 0) break;
      filled += count;
    }
    return filled;
  }

  /** Where data, or a hole, next begins at or after `offset`; `end` when that is past it or past the end of the file. */
  #seek(offset: number, whence: number, end: number): number {
    const at = lseek(this.fd, offset, whence);
    if (at >= 0) return Math.min(at, end);
    if (at !== -Errno.ENXIO) throw this.#error('seek in', at);
    // Past the end of the file: neither data nor, for a file that was cut meanwhile, anything before the hole.
    return whence === SEEK_DATA ? end : offset;
  }

  #error(what: string, errno: number): MigrateFsError {
    return new MigrateFsError('INTERNAL', `cannot ${what} image ${this.#name}: ${errnoName(errno)}`);
  }
}
