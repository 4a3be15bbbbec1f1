/** Errors of the backing files that only a later call tells of: neither the end of a file nor success. */
import {
  closeSync,
  constants,
  ftruncateSync,
  openSync,
  readSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import type { Test } from 'tap';
import t from 'tap';
import { createBackingCalls } from '../../src/fs/backing-calls.js';
import { Errno } from '../../src/fs/errno.js';
import { alignedBytes } from '../../src/fs/kernel/aligned-memory.js';
import { KiB, MiB } from '../../src/leaves/units.js';
import { performRouted } from '../../src/replica/target/perform-routed.js';
import { SharedMapping } from '../posix/libc.js';
import { CutProxy } from '../support/cut-proxy.js';
import { makeSparseImage } from '../support/files.js';
import { enterLane, HOT, IMAGE } from '../support/in-lane.js';
import { migrate, startPair } from '../support/pair.js';
import { scratchDir } from '../support/scratch.js';
import { fillDisk, smallDisk } from '../support/small-disk.js';
import { StuckFile } from '../support/stuck-file.js';
import { TestDaemon, type Transport } from '../support/test-daemon.js';

const BLOCK = 4 * KiB;
const SIZE = 256 * KiB;
const DAMAGED_FROM = 100 * KiB;
const ROOM = 32 * KiB;

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

const TRANSPORTS: readonly Transport[] = ['kernel', 'fuse-native'];

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

for (const transport of TRANSPORTS)
  t.test(`${transport}: what cannot be read in the middle of an image is an error`, (t) =>
    damaged(t as Test, transport),
  );

/** What msync(2) says after twice as much was written to the pages from `offset` on as there is room for. */
const writeMapped = (fd: number, offset: number): number => {
  const mapping = new SharedMapping(fd, offset + 2 * ROOM);
  mapping.write(offset, Buffer.alloc(2 * ROOM, 2));
  const answer = mapping.sync();
  mapping.unmap();
  return answer;
};

/** A daemon over a disk that has `ROOM` left for its image, which is a hole. */
const overFullDisk = async (t: Test, transport: Transport): Promise<TestDaemon> => {
  const imageDir = join(scratchDir(t, 'full'), 'images');
  await smallDisk(t, imageDir, 4 * MiB);
  const daemon = await TestDaemon.start(t, { imageDir, mountpoint: scratchDir(t, 'mount'), transport });
  writeFileSync(daemon.below('image'), '');
  truncateSync(daemon.below('image'), MiB);
  await fillDisk(imageDir, ROOM);
  return daemon;
};

for (const transport of TRANSPORTS)
  t.test(
    `${transport}: mapped pages of which the disk takes a part only are not lost silently`,
    async (t) => {
      const daemon = await overFullDisk(t as Test, transport);
      const fd = openSync(daemon.at('image'), 'r+');
      t.equal(
        writeSync(fd, Buffer.alloc(2 * ROOM, 1), 0, 2 * ROOM, 0),
        ROOM,
        'write(2) says how much it took',
      );
      ftruncateSync(fd, 0);
      ftruncateSync(fd, MiB);
      t.equal(writeMapped(fd, 0), -Errno.ENOSPC);
      closeSync(fd);
      await daemon.stop();
    },
  );

for (const transport of TRANSPORTS)
  t.test(`${transport}: nor are those of an image that is mirrored`, async (t) => {
    const imageDir = join(scratchDir(t, 'full'), 'images');
    await smallDisk(t, imageDir, 8 * MiB);
    const pair = await startPair(t, { source: { imageDir, mountpoint: scratchDir(t, 'mount'), transport } });
    const { daemon } = pair.source;
    makeSparseImage(daemon.below(IMAGE), 4 * MiB, [{ offset: HOT.offset, length: HOT.length }]);
    const proxy = await CutProxy.start(t, pair.target.daemon.dataAddress);
    const migration = await migrate(t, pair, [IMAGE], { cutover: 'explicit', to: proxy.address });
    await migration.reaches('mirroring');
    // The other transport has none: the replica thread writes.
    if (transport === 'kernel') await enterLane(pair, proxy);
    await fillDisk(imageDir, ROOM);
    const fd = openSync(daemon.at(IMAGE), 'r+');
    t.equal(writeMapped(fd, 2 * MiB), -Errno.ENOSPC);
    closeSync(fd);
  });

t.test('G1: nor those of a routed write that is performed without a migration', async (t) => {
  const folder = join(scratchDir(t, 'full'), 'disk');
  await smallDisk(t, folder, MiB);
  await fillDisk(folder, ROOM);
  const fd = openSync(join(folder, 'image'), 'w');
  t.teardown(() => closeSync(fd));
  const perform = (whole: boolean): number =>
    performRouted(createBackingCalls(), {
      op: 'write',
      slot: 0,
      fd,
      reply: { kind: 'port', id: 1 },
      offset: 0,
      payload: Buffer.alloc(2 * ROOM, 1),
      whole,
    });
  t.equal(perform(false), ROOM);
  t.equal(perform(true), -Errno.ENOSPC);
});
