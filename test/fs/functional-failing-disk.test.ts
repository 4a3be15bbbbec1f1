/** Errors of the backing files that only a later call tells of: neither the end of a file nor success. */
import { closeSync, constants, openSync, readSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { Test } from 'tap';
import t from 'tap';
import { alignedBytes } from '../../src/fs/kernel/aligned-memory.js';
import { KiB } from '../../src/leaves/units.js';
import { scratchDir } from '../support/scratch.js';
import { StuckFile } from '../support/stuck-file.js';
import { TestDaemon, type Transport } from '../support/test-daemon.js';

const BLOCK = 4 * KiB;
const SIZE = 256 * KiB;
const DAMAGED_FROM = 100 * KiB;

/** Bytes that can be read one block after the other, and what ends it. */
const readThrough = (path: string, flags: string): readonly [number, string] => {
  const fd = openSync(path, flags);
  const block = Buffer.alloc(BLOCK);
  let read = 0;
  try {
    for (;;) {
      const length = readSync(fd, block, 0, BLOCK, read);
      if (length === 0) return [read, 'end'];
      read += length;
    }
  } catch (error) {
    return [read, (error as NodeJS.ErrnoException).code!];
  } finally {
    closeSync(fd);
  }
};

const damaged = async (t: Test, transport: Transport): Promise<void> => {
  const imageDir = scratchDir(t, 'damaged');
  const file = await StuckFile.start(t, join(imageDir, 'image'), SIZE);
  const daemon = await TestDaemon.start(t, {
    imageDir,
    mountpoint: scratchDir(t, 'mount'),
    transport,
    // With it the kernel reads the file itself.
    extraArgs: ['--passthrough=off'],
  });
  const path = daemon.at('image');
  await file.damage(DAMAGED_FROM);
  t.same(readThrough(path, 'r'), [DAMAGED_FROM, 'EIO'], 'through the page cache, which reads ahead');
  const fd = openSync(path, constants.O_RDWR | constants.O_DIRECT);
  const whole = alignedBytes(SIZE, 0);
  t.throws(() => readSync(fd, whole, 0, SIZE, 0), { code: 'EIO' }, 'a direct read across the place');
  closeSync(fd);
  t.equal(statSync(path).size, SIZE);
  await file.damage(SIZE);
  t.same(readThrough(path, 'r'), [SIZE, 'end'], 'where nothing is damaged it ends where the file does');
  await daemon.stop();
};

for (const transport of ['kernel', 'fuse-native'] as const)
  t.test(`${transport}: what cannot be read in the middle of an image is an error`, (t) =>
    damaged(t as Test, transport),
  );
