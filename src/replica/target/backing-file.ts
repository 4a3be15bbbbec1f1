import { fdatasync, read, writeSync, writev, writevSync } from 'node:fs';
import { promisify } from 'node:util';
import { Errno, errnoName } from '../../fs/errno.js';
import type { BackingCalls } from '../../fs/image-io.js';
import {
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  FALLOC_FL_ZERO_RANGE,
  lseek,
  SEEK_DATA,
} from '../../fs/libc.js';
import { MigrateFsError } from '../../leaves/errors.js';
import { KiB } from '../../leaves/units.js';
import type { PayloadChunks } from '../wire/frame.js';

const writevAsync = promisify(writev);
const readAsync = promisify(read);
const fdatasyncAsync = promisify(fdatasync);

const ZEROES = Buffer.alloc(512 * KiB);

/** What a failed system call means to the source: a full disk, or something that an operator must look at. */
export const backingError = (what: string, error: unknown): MigrateFsError => {
  if (error instanceof MigrateFsError) return error;
  const code = (error as NodeJS.ErrnoException).code ?? String(error);
  return code === 'ENOSPC' || code === 'EDQUOT'
    ? new MigrateFsError('RESOURCE_EXHAUSTED', `${what} on the target: its disk is full (${code})`, {
        cause: error,
      })
    : new MigrateFsError('INTERNAL', `${what} on the target: ${code}`, { cause: error });
};

/** The same for the result of a `BackingCalls` call; nothing is thrown for 0 or more. */
const check = (result: number): number => {
  if (result >= 0) return result;
  throw Object.assign(new Error(errnoName(result)), { code: errnoName(result) });
};

/** A replica's backing descriptor: whole-extent operations, short writes continued. Errors are Node's, with `code`. */
export class BackingFile {
  readonly fd: number;
  readonly #calls: BackingCalls;

  constructor(fd: number, calls: BackingCalls) {
    this.fd = fd;
    this.#calls = calls;
  }

  size(): number {
    return check(this.#calls.fileSize(this.fd));
  }

  writeNow(chunks: PayloadChunks, offset: number): void {
    let left = chunks;
    let at = offset;
    while (left.length > 0) {
      const written =
        left.length === 1
          ? writeSync(this.fd, left[0]!, 0, left[0]!.length, at)
          : writevSync(this.fd, left, at);
      at += written;
      left = behind(left, written);
    }
  }

  async write(chunks: PayloadChunks, offset: number): Promise<void> {
    let left = chunks;
    let at = offset;
    while (left.length > 0) {
      const { bytesWritten } = await writevAsync(this.fd, left, at);
      at += bytesWritten;
      left = behind(left, bytesWritten);
    }
  }

  /** Makes the part of the extent that is within the image read as zeroes, and gives its blocks back where possible. */
  punch(offset: number, length: number): void {
    const within = Math.min(length, this.size() - offset);
    if (within <= 0) return;
    const mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    const result = this.#calls.fallocate(this.fd, mode, offset, within);
    if (result === -Errno.EOPNOTSUPP) this.#zero(offset, within);
    else check(result);
  }

  /** fallocate(2). Where the file system cannot do the mode: the same bytes and size, without the allocation. */
  allocate(mode: number, offset: number, length: number): void {
    const result = this.#calls.fallocate(this.fd, mode, offset, length);
    if (result !== -Errno.EOPNOTSUPP) {
      check(result);
      return;
    }
    const keepSize = (mode & FALLOC_FL_KEEP_SIZE) !== 0;
    if ((mode & SHIFTING_MODES) !== 0) check(result);
    else if ((mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) !== 0)
      this.#zero(offset, keepSize ? Math.min(length, this.size() - offset) : length);
    else if (!keepSize && offset + length > this.size()) this.resize(offset + length);
  }

  resize(size: number): void {
    check(this.#calls.ftruncate(this.fd, size));
  }

  datasync(): Promise<void> {
    return fdatasyncAsync(this.fd);
  }

  /** Bytes read into `buffer`, less than asked for only at the end of the image. */
  async read(buffer: Buffer, length: number, offset: number): Promise<number> {
    let done = 0;
    while (done < length) {
      const { bytesRead } = await readAsync(this.fd, buffer, done, length - done, offset + done);
      if (bytesRead === 0) break;
      done += bytesRead;
    }
    return done;
  }

  /** Whether the file system knows that the extent holds no data. False when it cannot tell. */
  isHole(offset: number, length: number): boolean {
    const data = lseek(this.fd, offset, SEEK_DATA);
    return data === -Errno.ENXIO || (data >= 0 && data >= offset + length);
  }

  #zero(offset: number, length: number): void {
    for (let done = 0; done < length; done += ZEROES.length)
      this.writeNow([ZEROES.subarray(0, Math.min(ZEROES.length, length - done))], offset + done);
  }
}

/** FALLOC_FL_COLLAPSE_RANGE and FALLOC_FL_INSERT_RANGE (include/uapi/linux/falloc.h): bytes change their offsets. */
const SHIFTING_MODES = 0x08 | 0x20;
/** Every FALLOC_FL_ flag of that header but NO_HIDE_STALE: keep size, punch, collapse, zero, insert, unshare. */
export const ALLOCATE_MODES = 0x7b;

/** What of `chunks` is left after their first `written` bytes. */
const behind = (chunks: PayloadChunks, written: number): PayloadChunks => {
  let skip = written;
  for (let i = 0; i < chunks.length; i++) {
    const chunk = chunks[i]!;
    if (skip < chunk.length) return [chunk.subarray(skip), ...chunks.slice(i + 1)];
    skip -= chunk.length;
  }
  return [];
};
