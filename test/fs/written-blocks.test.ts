import fc from 'fast-check';
import t from 'tap';
import type { BackingCalls } from '../../src/fs/backing-calls.js';
import { DirtyBitmap } from '../../src/fs/dirty-bitmap.js';
import { ImageIo } from '../../src/fs/image-io.js';
import { GraceCounters, ImageMode, ImageTable } from '../../src/fs/image-table.js';
import { WrittenBlocks } from '../../src/fs/written-blocks.js';
import { bytes, GiB, KiB, MiB } from '../../src/leaves/units.js';

const BLOCK = bytes(64 * KiB);
const SLOT = 5;

t.test('property: bytes and blocks are those of the writes', async () => {
  const writes = fc.array(fc.tuple(fc.nat(4 * MiB), fc.integer({ min: 1, max: MiB })), { maxLength: 50 });
  fc.assert(
    fc.property(writes, (list) => {
      const written = WrittenBlocks.allocate(bytes(8 * MiB), BLOCK);
      const expected = new Set<number>();
      let total = 0;
      for (const [offset, length] of list) {
        written.note(offset, length);
        total += length;
        for (let at = offset; at < offset + length; at++) {
          expected.add(Math.floor(at / BLOCK));
          at = (Math.floor(at / BLOCK) + 1) * BLOCK - 1;
        }
      }
      const behind = [...expected].filter((block) => block >= 20).length;
      return (
        written.bytes === total &&
        written.blocks === expected.size &&
        written.blocksIn(0, 128) === expected.size &&
        written.blocksIn(20, 1000) === behind
      );
    }),
  );
});

t.test('more than 4 GiB are counted', async (t) => {
  const written = WrittenBlocks.allocate(bytes(MiB), BLOCK);
  for (let i = 0; i < 20; i++) written.note(0, GiB);
  t.equal(written.bytes, 20 * GiB);
});

t.test('small writes in a row to one block are one visit, going back is another', async (t) => {
  const written = WrittenBlocks.allocate(bytes(MiB), BLOCK);
  for (let i = 0; i < 16; i++) written.note(i * 4 * KiB, 4 * KiB);
  t.equal(written.visits, 1);
  written.note(BLOCK, 4 * KiB);
  written.note(0, 4 * KiB);
  t.equal(written.visits, 3);
  t.equal(written.blocks, 2);
});

t.test('a write past the capacity counts its bytes', async (t) => {
  const written = WrittenBlocks.allocate(bytes(2 * BLOCK), BLOCK);
  written.note(100 * GiB, 4 * KiB);
  t.equal(written.bytes, 4 * KiB);
  t.equal(written.blocks, 0);
});

t.test(
  'writes are counted while the image is tracked, as many bytes as were written, and not while idle',
  async (t) => {
    const table = new ImageTable();
    let result = 4096;
    const calls: BackingCalls = {
      pwrite: () => result,
      fallocate: () => 0,
      ftruncate: () => 0,
      fsync: () => 0,
      fileSize: () => MiB,
    };
    const io = new ImageIo(table, new GraceCounters(), 0, calls, () => {});
    const bitmap = DirtyBitmap.allocate(bytes(MiB), BLOCK);
    const written = WrittenBlocks.allocate(bytes(MiB), BLOCK);
    io.announce({
      type: 'bitmap',
      slot: SLOT,
      epoch: 0,
      bitmap: bitmap.buffer,
      written: written.buffer,
      blockSize: BLOCK,
    });
    const write = (): number => io.write(SLOT, 3, Buffer.alloc(4096), 4096, 0);
    write();
    t.equal(written.bytes, 0, 'idle');
    table.setMode(SLOT, ImageMode.tracked);
    write();
    t.equal(written.bytes, 4096);
    result = 1000;
    write();
    t.equal(written.bytes, 5096, 'a short write');
    result = -28;
    write();
    t.equal(written.bytes, 5096, 'one that failed');
    table.setMode(SLOT, ImageMode.routed);
    write();
    t.equal(written.bytes, 5096, 'one that is performed elsewhere');
  },
);
