import { fdatasync, read, writeSync, writev, writevSync } from 'node:fs';
import { promisify } from 'node:util';
import type { BackingCalls } from '../../fs/backing-calls.js';
import { Errno, errnoName } from '../../fs/errno.js';
import {
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  FALLOC_FL_ZERO_RANGE,
  lseek,
  SEEK_DATA,
} from '../../fs/libc.js';
import { MigrateFsError } from '../../leaves/errors.js';
import type { Bytes } from '../../leaves/units.js';
import { bytes, KiB, MiB } from '../../leaves/units.js';
import type { PayloadChunks } from '../wire/payload.js';
import { payloadLength } from '../wire/payload.js';

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
  throw errnoError(result);
};

/** As Node's own, for -errno. */
export const errnoError = (errno: number): Error =>
  Object.assign(new Error(errnoName(errno)), { code: errnoName(errno) });

/** Written together: longer, and a small write of another kind would wait for it. */
const RUN_BYTES_MAX: Bytes = bytes(1 * MiB);
/** writev(2) takes no more. */
const RUN_CHUNKS_MAX = 1024;

interface QueuedWrite {
  readonly chunks: PayloadChunks;
  readonly offset: number;
  readonly length: number;
  resolve(): void;
  reject(error: Error): void;
}

/** Takes the first off the queue, and what follows it there and in the file. */
const nextRun = (queue: QueuedWrite[]): readonly QueuedWrite[] | undefined => {
  const [first] = queue;
  if (!first) return undefined;
  let count = 1;
  let { length } = first;
  let chunks = first.chunks.length;
  for (let next = queue[count]; next; next = queue[++count]) {
    chunks += next.chunks.length;
    if (next.offset !== first.offset + length || length + next.length > RUN_BYTES_MAX) break;
    if (chunks > RUN_CHUNKS_MAX) break;
    length += next.length;
  }
  return queue.splice(0, count);
};

/** A replica's backing descriptor: whole-extent operations, short writes continued. Errors are Node's, with `code`. */
export class BackingFile {
  readonly fd: number;
  readonly #calls: BackingCalls;
  /** In the order of the calls; what is being written has left it. */
  readonly #queue: QueuedWrite[] = [];
  #writing = false;
  #flushed: Promise<void> = Promise.resolve();

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

  /**
   * Off this thread, one after the other: the kernel lets one write a file at a time, and threads that wait for it spin.
   * What queues up meanwhile and is contiguous is written together.
   */
  write(chunks: PayloadChunks, offset: number): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#queue.push({ chunks, offset, length: payloadLength(chunks), resolve, reject });
      if (!this.#writing) void this.#writeQueued();
    });
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

  /**
   * One after the other, and none after one that failed, whose error they all have: the kernel drops what it could not
   * write, and says so to one of them only.
   */
  datasync(): Promise<void> {
    this.#flushed = this.#flushed.then(() => fdatasyncAsync(this.fd));
    return this.#flushed;
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

  async #writeQueued(): Promise<void> {
    this.#writing = true;
    for (let run = nextRun(this.#queue); run; run = nextRun(this.#queue)) {
      try {
        await this.#writeAll(
          run.flatMap(({ chunks }) => chunks),
          run[0]!.offset,
        );
        for (const { resolve } of run) resolve();
      } catch (error) {
        for (const { reject } of run) reject(error as Error);
      }
    }
    this.#writing = false;
  }

  async #writeAll(chunks: PayloadChunks, offset: number): Promise<void> {
    let left = chunks;
    let at = offset;
    while (left.length > 0) {
      const { bytesWritten } = await writevAsync(this.fd, left, at);
      at += bytesWritten;
      left = behind(left, bytesWritten);
    }
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
