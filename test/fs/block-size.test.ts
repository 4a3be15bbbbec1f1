import fc from 'fast-check';
import t from 'tap';
import { blockSizeFor, DirtyBitmap } from '../../src/fs/dirty-bitmap.js';
import { blockIndex, bytes, GiB, KiB, MiB } from '../../src/leaves/units.js';

t.test(
  'small images are tracked in pieces as guests write them, large ones in pieces of 64 KiB',
  async (t) => {
    for (const [size, blockSize] of [
      [0, 4 * KiB],
      [GiB, 4 * KiB],
      [32 * GiB, 4 * KiB],
      [32 * GiB + 1, 8 * KiB],
      [100 * GiB, 16 * KiB],
      [512 * GiB, 64 * KiB],
      [1024 * GiB, 64 * KiB],
      [8 * 1024 * GiB, 64 * KiB],
    ] as const)
      t.equal(blockSizeFor(size), blockSize, `${size} bytes`);
  },
);

t.test('the bits of an image take a MiB, or 2 MiB for each TiB, at most', async (t) => {
  const worst = fc.check(
    fc.property(fc.integer({ min: 0, max: 2 ** 50 }), (size) => {
      const bits = Math.floor(size / blockSizeFor(size));
      return bits / 8 <= Math.max(MiB, (size / (1024 * GiB)) * 2 * MiB);
    }),
  );
  t.notOk(worst.failed, String(worst.counterexample));
});

t.test('blocks that are cleared before their writer has counted them make no negative size', async (t) => {
  const bitmap = DirtyBitmap.allocate(bytes(1 * MiB), bytes(4 * KiB));
  const [header, words] = [new Int32Array(bitmap.buffer, 0, 4), new Int32Array(bitmap.buffer, 16)];
  // A writer has set its bits, and goes on after the copier.
  Atomics.or(words, 0, 0b111);
  t.equal(bitmap.clear(blockIndex(0), blockIndex(3)), 3);
  t.equal(bitmap.dirtyBytes, 0);
  Atomics.add(header, 0, 3);
  t.equal(bitmap.dirtyBytes, 0);
  bitmap.mark(0, 1);
  t.equal(bitmap.dirtyBytes, 4 * KiB);
});
