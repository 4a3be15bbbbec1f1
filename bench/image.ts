import { randomFillSync } from 'node:crypto';
import { type FileHandle, open } from 'node:fs/promises';

const CHUNK_BYTES = 8 * 1024 * 1024;

/** Writes `length` bytes that are neither zero nor alike from one block to the next. */
const fillRange = async (file: FileHandle, offset: number, length: number): Promise<void> => {
  const chunk = randomFillSync(Buffer.alloc(Math.min(CHUNK_BYTES, length)));
  for (let at = 0; at < length; at += chunk.length) {
    const part = chunk.subarray(0, Math.min(chunk.length, length - at));
    for (let block = 0; block + 8 <= part.length; block += 4096)
      part.writeDoubleLE(offset + at + block, block);
    await file.write(part, 0, part.length, offset + at);
  }
};

/** Makes an image with a block of 4 KiB of data at the beginning of each `gap` bytes, and holes between them. */
export const scatterImage = async (path: string, blocks: number, gap: number): Promise<void> => {
  await using file = await open(path, 'w');
  await file.truncate(blocks * gap);
  for (let at = 0; at < blocks * gap; at += gap) await fillRange(file, at, 4096);
};

/** Makes an image of `size` bytes, all of it data. */
export const fillImage = async (path: string, size: number): Promise<void> => {
  await using file = await open(path, 'w');
  await fillRange(file, 0, size);
};
