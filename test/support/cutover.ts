/** Handing a migrated image over by writing to it on the target, in a way that leaves the bytes as they are. */
import { type FileHandle, open } from 'node:fs/promises';
import { digestOf } from './files.js';

/** One block, aligned as O_DIRECT wants it. */
const BLOCK_BYTES = 4096;

/** Reads the block at `offset` below the mount of the source and writes it to the target through its mount: G2's trigger. */
export const rewriteBlock = async (below: string, through: string, offset: number): Promise<number> => {
  await using source = await open(below, 'r');
  await using target = await open(through, 'r+');
  const block = Buffer.alloc(BLOCK_BYTES);
  await source.read(block, 0, BLOCK_BYTES, offset);
  const began = performance.now();
  await target.write(block, 0, BLOCK_BYTES, offset);
  return performance.now() - began;
};

/** The code of the error that a write of one byte to `path` meets, or the empty string when it is taken. */
export const writeRefusal = async (path: string): Promise<string> => {
  let file: FileHandle | undefined;
  try {
    file = await open(path, 'r+');
    const byte = Buffer.alloc(1);
    await file.read(byte, 0, 1, 0);
    await file.write(byte, 0, 1, 0);
    return '';
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? String(error);
  } finally {
    await file?.close().catch(() => undefined);
  }
};

/** Whether two files hold the same bytes. */
export const identical = async (one: string, other: string): Promise<boolean> => {
  const [a, b] = await Promise.all([digestOf(one), digestOf(other)]);
  return a === b;
};
