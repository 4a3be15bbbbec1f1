/** Sparse images: what fallocate(2) does to them and what SEEK_HOLE and SEEK_DATA say, as in a plain folder. */
import { closeSync, openSync, readFileSync, readSync, writeFileSync, writeSync } from 'node:fs';
import t from 'tap';
import { raiseOpenFilesLimit } from '../../src/fs/libc.js';
import { runCases } from '../posix/compare.js';
import { type Cases, O_CREAT, O_RDWR, SEEK_DATA, SEEK_HOLE, type Workbench } from '../posix/workbench.js';
import { scratchDir } from '../support/scratch.js';
import { TestDaemon } from '../support/test-daemon.js';

const KIB = 1024;
const BLOCK = 4 * KIB;
const KEEP_SIZE = 1;
const PUNCH_HOLE = 2;
const ZERO_RANGE = 16;

/** Blocks of data in an image of `blocks` blocks and `tail` bytes. */
interface Layout {
  readonly blocks: number;
  readonly tail: number;
  readonly data: readonly number[];
}

const LAYOUTS: Readonly<Record<string, Layout>> = {
  'nothing but a hole': { blocks: 16, tail: 0, data: [] },
  'nothing but data': { blocks: 16, tail: 0, data: Array.from({ length: 16 }, (_, i) => i) },
  'every other block': { blocks: 16, tail: 0, data: [1, 3, 5, 7, 9, 11, 13, 15] },
  'a hole at both ends, an odd size': { blocks: 16, tail: 100, data: [4, 5, 6] },
  'data at both ends, an odd size': { blocks: 16, tail: 4095, data: [0, 16] },
};

const make = (w: Workbench, { blocks, tail, data }: Layout): number => {
  const fd = w.open('image', O_RDWR | O_CREAT);
  const size = blocks * BLOCK + tail;
  w.ftruncate(fd, size);
  for (const block of data) {
    const offset = block * BLOCK;
    w.pwrite(fd, Buffer.alloc(Math.min(BLOCK, size - offset), block + 1), offset);
  }
  return fd;
};

/** Everything that tells of the image's space and contents. */
const look = (w: Workbench, fd: number): void => {
  w.stat('image');
  w.fsync(fd);
  w.segments(fd);
  w.allocated('image');
  w.contents('image');
};

const seeks: Cases = Object.fromEntries(
  Object.entries(LAYOUTS).map(([name, layout]) => [
    `seeking: ${name}`,
    (w: Workbench) => {
      const fd = make(w, layout);
      const size = layout.blocks * BLOCK + layout.tail;
      for (let block = 0; block <= layout.blocks + 1; block++)
        for (const offset of [
          block * BLOCK - 1,
          block * BLOCK,
          block * BLOCK + 1,
          size - 1,
          size,
          size + 1,
        ]) {
          w.lseek(fd, offset, SEEK_DATA);
          w.lseek(fd, offset, SEEK_HOLE);
        }
    },
  ]),
);

const MODES: Readonly<Record<string, number>> = {
  allocate: 0,
  'allocate, keep the size': KEEP_SIZE,
  punch: PUNCH_HOLE | KEEP_SIZE,
  zero: ZERO_RANGE,
  'zero, keep the size': ZERO_RANGE | KEEP_SIZE,
};

/** Within the image, across its end, past its end; on blocks and across them. */
const EXTENTS: readonly (readonly [offset: number, length: number])[] = [
  [0, BLOCK],
  [4 * BLOCK + 1, 2 * BLOCK - 2],
  [5 * BLOCK - 1, 2],
  [BLOCK, 14 * BLOCK],
  [15 * BLOCK + 7, 4 * BLOCK],
  [20 * BLOCK, 2 * BLOCK],
  [0, 64 * BLOCK],
];

const changes: Cases = Object.fromEntries(
  Object.entries(MODES).flatMap(([how, mode]) =>
    Object.entries(LAYOUTS).map(([name, layout]) => [
      `${how}: ${name}`,
      (w: Workbench) => {
        for (const [offset, length] of EXTENTS) {
          const fd = make(w, layout);
          w.fallocate(fd, mode, offset, length);
          look(w, fd);
          // What was kept back past the end shows once the image grows.
          w.ftruncate(fd, 32 * BLOCK);
          look(w, fd);
          w.close(fd);
          w.unlink('image');
        }
      },
    ]),
  ),
);

const refusals: Cases = {
  'modes and extents that are refused': (w) => {
    const fd = make(w, LAYOUTS['every other block']!);
    for (const mode of [PUNCH_HOLE, PUNCH_HOLE | ZERO_RANGE | KEEP_SIZE, 4, 128])
      w.fallocate(fd, mode, 0, BLOCK);
    for (const [offset, length] of [
      [0, 0],
      [-1, BLOCK],
      [0, -1],
    ] as const)
      for (const mode of Object.values(MODES)) w.fallocate(fd, mode, offset, length);
    look(w, fd);
  },
};

t.test('sparse images', async (t) => {
  const plain = scratchDir(t, 'plain');
  const daemon = await TestDaemon.start(t);
  await t.test('cases', async (t) =>
    runCases(
      t as typeof import('tap').t,
      { ...seeks, ...changes, ...refusals },
      daemon.mountpoint,
      plain,
      {},
    ),
  );
  await daemon.stop();
});

t.test('4,000 images open at once', async (t) => {
  const IMAGES = 4000;
  t.ok(raiseOpenFilesLimit() > IMAGES + 100, 'this process may open so many');
  const daemon = await TestDaemon.start(t);
  const names = Array.from({ length: IMAGES }, (_, i) => `image-${i}`);
  for (const name of names) writeFileSync(daemon.below(name), `${name} before`);
  const fds = names.map((name) => openSync(daemon.at(name), 'r+'));
  for (const [i, fd] of fds.entries()) writeSync(fd, `${i}`.padStart(6), 6);
  const wrong = names.filter((name, i) => {
    const back = Buffer.alloc(100);
    const length = readSync(fds[i]!, back, 0, 100, 0);
    const wanted = Buffer.from(`${name} before`);
    wanted.write(`${i}`.padStart(6), 6);
    const padded = wanted.length < 12 ? Buffer.concat([wanted], 12) : wanted;
    return !back.subarray(0, length).equals(padded) || !readFileSync(daemon.below(name)).equals(padded);
  });
  t.strictSame(wrong, [], 'each holds what was written to it');
  for (const fd of fds) closeSync(fd);
  await daemon.stop();
});
