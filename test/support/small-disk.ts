import { mkdirSync, statfsSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { runOk } from './run.js';
import type { Teardown } from './scratch.js';

const CHUNK_BYTES = 1024 * 1024;

/** Mounts a tmpfs of `size` bytes at `folder`, for the length of the test. */
export const smallDisk = async (t: Teardown, folder: string, size: number): Promise<void> => {
  mkdirSync(folder, { recursive: true });
  await runOk('mount', ['-t', 'tmpfs', '-o', `size=${size}`, 'mfs-test', folder]);
  t.teardown(() => runOk('umount', ['-l', folder]));
};

/** Fills a small disk but for `leave` bytes with a file `ballast`; less is left when somebody else writes meanwhile. */
export const fillDisk = async (folder: string, leave: number): Promise<void> => {
  await using file = await open(join(folder, 'ballast'), 'w');
  const { bavail, bsize } = statfsSync(folder);
  const chunk = Buffer.alloc(CHUNK_BYTES);
  try {
    for (let left = bavail * bsize - leave; left > 0; left -= CHUNK_BYTES)
      await file.write(chunk, 0, Math.min(left, CHUNK_BYTES));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
  }
};
