/** Image files: making, measuring and comparing them. */
import { createHash } from 'node:crypto';
import { closeSync, createReadStream, ftruncateSync, openSync, statSync, writeSync } from 'node:fs';
import { pipeline } from 'node:stream/promises';
import { type Bytes, bytes, MiB } from '../../src/leaves/units.js';
import { Random } from './random.js';

/** SHA-256 of the whole file, in hexadecimal. */
export const digestOf = async (path: string): Promise<string> => {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path, { highWaterMark: MiB }), hash);
  return hash.digest('hex');
};

/** Bytes of disk that the file takes up (st_blocks counts units of 512). */
export const allocatedBytes = (path: string): Bytes => bytes(statSync(path).blocks * 512);

/** A range of data in an otherwise empty image. */
export interface DataRange {
  readonly offset: number;
  readonly length: number;
}

/** Makes a sparse file of `size` bytes with incompressible data, the same for the same seed, in `ranges` only. */
export const makeSparseImage = (
  path: string,
  size: number,
  ranges: readonly DataRange[] = [],
  seed = 1,
): void => {
  const fd = openSync(path, 'wx', 0o644);
  try {
    ftruncateSync(fd, size);
    const random = new Random(seed);
    const chunk = Buffer.alloc(MiB);
    for (const { offset, length } of ranges) {
      for (let done = 0; done < length; done += chunk.length) {
        const part = Math.min(chunk.length, length - done);
        random.fill(chunk);
        writeSync(fd, chunk, 0, part, offset + done);
      }
    }
  } finally {
    closeSync(fd);
  }
};
