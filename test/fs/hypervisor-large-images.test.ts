/** Images larger than their disk, and offsets up to 2^53 - 1, the last that a JavaScript number tells from the next. */
import { constants, openSync, statSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { alignedBytes } from '../../src/fs/kernel/aligned-memory.js';
import { GiB, KiB, MiB } from '../../src/leaves/units.js';
import { errnoName, libc } from '../posix/libc.js';
import { scratchDir, type Teardown } from '../support/scratch.js';
import { smallDisk } from '../support/small-disk.js';
import { TestDaemon } from '../support/test-daemon.js';

const { O_RDWR, O_CREAT, O_DIRECT } = constants;
const SEEK_DATA = 3;
const SEEK_HOLE = 4;
const KEEP_SIZE = 1;
const PUNCH_HOLE = 2;
const BLOCK = 4 * KiB;
const TiB = 1024 * GiB;
const MEMORY_DISK_BYTES = 16 * MiB;
/** Calls with offsets that are bigints. */
const exactly = libc as unknown as Record<
  'pwrite' | 'fallocate' | 'ftruncate',
  (...args: unknown[]) => number
>;
const PAST_EXACT = 2n ** 53n + 1n;

/** Extents of data, as SEEK_DATA and SEEK_HOLE tell them; ends when there are more than any image here has. */
const dataOf = (fd: number): [start: number, end: number][] => {
  const found: [number, number][] = [];
  for (let end = 0; found.length < 20; ) {
    const start = libc.lseek(fd, end, SEEK_DATA);
    if (start < 0) break;
    end = libc.lseek(fd, start, SEEK_HOLE);
    found.push([start, end]);
  }
  return found;
};

const answer = (result: number): number | string => (result < 0 ? errnoName(-result) : result);

t.test('a sparse image of 8 TiB, written directly', async (t) => {
  const daemon = await TestDaemon.start(t);
  const fd = openSync(daemon.at('image'), O_RDWR | O_CREAT | O_DIRECT, 0o600);
  const below = openSync(daemon.below('image'), O_RDWR);
  t.equal(libc.ftruncate(fd, 8 * TiB), 0);
  t.strictSame(dataOf(fd), [], 'nothing but a hole');
  const places = [0, 2 ** 31 - BLOCK, 2 ** 31, 2 ** 32 - BLOCK, 2 ** 32 + BLOCK, 2 ** 41, 8 * TiB - BLOCK];
  const back = Buffer.alloc(BLOCK);
  for (const [i, place] of places.entries()) {
    const block = alignedBytes(BLOCK, 0).fill(i + 1);
    t.equal(libc.pwrite(fd, block, BLOCK, place), BLOCK);
    t.equal(libc.pread(below, back, BLOCK, place), BLOCK);
    t.ok(back.equals(block), `lands at ${place}`);
  }
  const data: [number, number][] = [
    [0, BLOCK],
    [2 ** 31 - BLOCK, 2 ** 31 + BLOCK],
    [2 ** 32 - BLOCK, 2 ** 32],
    [2 ** 32 + BLOCK, 2 ** 32 + 2 * BLOCK],
    [2 ** 41, 2 ** 41 + BLOCK],
    [8 * TiB - BLOCK, 8 * TiB],
  ];
  t.strictSame(dataOf(fd), data);
  t.equal(libc.fallocate(fd, PUNCH_HOLE | KEEP_SIZE, 2 ** 32 - BLOCK, 4 * BLOCK), 0);
  t.equal(libc.fallocate(fd, PUNCH_HOLE | KEEP_SIZE, 8 * TiB - BLOCK, BLOCK), 0);
  t.strictSame(
    dataOf(fd),
    [...data.slice(0, 2), [2 ** 41, 2 ** 41 + BLOCK]],
    'punched across 2^32 and at the end',
  );
  t.equal(statSync(daemon.at('image')).size, 8 * TiB);
  // Four blocks of data, and what the file system needs to find them.
  t.ok(statSync(daemon.below('image')).blocks * 512 <= 8 * BLOCK, 'takes up hardly anything');
  t.equal(libc.ftruncate(fd, 2 ** 31), 0);
  t.equal(libc.ftruncate(fd, 8 * TiB), 0);
  t.strictSame(
    dataOf(below),
    [
      [0, BLOCK],
      [2 ** 31 - BLOCK, 2 ** 31],
    ],
    'cut off at 2^31',
  );
  libc.close(fd);
  libc.close(below);
  await daemon.stop();
});

/** A daemon over tmpfs, which has files of any size. */
const overMemory = async (t: Teardown): Promise<TestDaemon> => {
  const imageDir = join(scratchDir(t, 'large'), 'images');
  await smallDisk(t, imageDir, MEMORY_DISK_BYTES);
  return await TestDaemon.start(t, { imageDir, mountpoint: scratchDir(t, 'mount') });
};

t.test('offsets to 2^53 - 1 are exact', async (t) => {
  const daemon = await overMemory(t);
  const fd = openSync(daemon.at('image'), O_RDWR | O_CREAT, 0o600);
  const below = openSync(daemon.below('image'), O_RDWR);
  for (const edge of [2 ** 31, 2 ** 32, 2 ** 40, 2 ** 52, 2 ** 53 - 3]) {
    const text = Buffer.from(`at${edge}`.slice(-4));
    t.equal(libc.pwrite(fd, text, 4, edge - 2), 4);
    for (const descriptor of [fd, below]) {
      const back = Buffer.alloc(8);
      t.equal(libc.pread(descriptor, back, 8, edge - 3), 5, `up to the end at ${edge + 2}`);
      t.equal(back.toString('latin1'), `\0${text.toString()}\0\0\0`);
    }
    t.equal(statSync(daemon.below('image'), { bigint: true }).size, BigInt(edge) + 2n);
    t.equal(libc.lseek(fd, -1, 2), edge + 1, 'SEEK_END');
  }
  t.strictSame(dataOf(fd), dataOf(below));
  t.equal(dataOf(fd).length, 5);
  t.equal(libc.ftruncate(fd, 2 ** 52 - 1), 0);
  t.equal(statSync(daemon.below('image')).size, 2 ** 52 - 1);
  t.equal(libc.fallocate(fd, PUNCH_HOLE | KEEP_SIZE, 2 ** 40 - 1, 1), 0);
  const back = Buffer.alloc(4);
  libc.pread(below, back, 4, 2 ** 40 - 2);
  t.equal(back.toString('latin1'), `${`${2 ** 40}`.at(-4)}\0${`${2 ** 40}`.slice(-2)}`, 'one byte is zeroed');
  libc.close(fd);
  libc.close(below);
  await daemon.stop();
});

t.test('a size past 2^53 is refused', async (t) => {
  const daemon = await overMemory(t);
  const fd = openSync(daemon.at('image'), O_RDWR | O_CREAT, 0o600);
  t.equal(answer(exactly.ftruncate(fd, PAST_EXACT)), 'EFBIG');
  t.equal(libc.ftruncate(fd, 2 ** 53 - 1), 0);
  t.equal(statSync(daemon.below('image')).size, 2 ** 53 - 1);
  libc.close(fd);
  await daemon.stop();
});

t.test('a change past 2^53 is refused and lands nowhere', async (t) => {
  const daemon = await overMemory(t);
  const fd = openSync(daemon.at('image'), O_RDWR | O_CREAT, 0o600);
  t.equal(answer(exactly.pwrite(fd, Buffer.from('x'), 1, PAST_EXACT)), 'EFBIG');
  t.equal(answer(exactly.fallocate(fd, 0, PAST_EXACT, 1)), 'EFBIG');
  t.equal(statSync(daemon.below('image')).size, 0);
  libc.close(fd);
  await daemon.stop();
});

t.test('a larger file that was made below does the mount no harm', async (t) => {
  const daemon = await overMemory(t);
  const below = openSync(daemon.below('image'), O_RDWR | O_CREAT, 0o600);
  t.equal(exactly.pwrite(below, Buffer.from('x'), 1, PAST_EXACT + 10_000n), 1);
  const fd = openSync(daemon.at('image'), O_RDWR);
  t.equal(answer(libc.lseek(fd, 0, SEEK_DATA)), 'EOVERFLOW', 'an answer that has no number');
  t.equal(libc.lseek(fd, 0, SEEK_HOLE), 0, 'the mount serves on');
  libc.close(fd);
  libc.close(below);
  await daemon.stop();
});
