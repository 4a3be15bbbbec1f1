/** Runs that another thread copies: what is not acknowledged is dirty again (G2). */
import t from 'tap';
import { DirtyBitmap } from '../../src/fs/dirty-bitmap.js';
import { blockIndex, bytes, KiB, MiB } from '../../src/leaves/units.js';
import { ExtentLocks } from '../../src/replica/extent-locks.js';
import { BufferPool } from '../../src/replica/source/buffer-pool.js';
import { Copier } from '../../src/replica/source/copier.js';
import type { BulkBatch, RunsSettled } from '../../src/replica/source/ports.js';

const BLOCK = bytes(4 * KiB);
const RUNS = [
  [0, 1],
  [4, 6],
  [9, 10],
] as const;

const world = () => {
  const bitmap = DirtyBitmap.allocate(bytes(MiB), BLOCK);
  const given: { batch: BulkBatch; dirty: number; settled: RunsSettled }[] = [];
  let end: { resolve: (bytes: number) => void; reject: (error: Error) => void };
  const settled: string[] = [];
  const counted: string[] = [];
  const copier = new Copier({
    image: 3,
    bitmap,
    port: { fd: 42, size: never, nextData: never, segments: never, read: never },
    wire: {
      open: true,
      bulk: {
        copy: (batch, onSettled) =>
          new Promise((resolve, reject) => {
            given.push({ batch, dirty: bitmap.dirtyBlocks, settled: onSettled });
            end = { resolve, reject };
          }),
      },
      send: never,
    },
    locks: new ExtentLocks(),
    buffers: new BufferPool(),
    counters: {
      sent: (count, kind) => counted.push(`sent ${count} ${kind}`),
      acked: (count) => counted.push(`acked ${count}`),
    },
    onSettled: (count, outcome) => settled.push(`${outcome} ${count}`),
  });
  for (const [from, to] of RUNS) bitmap.mark(from * BLOCK, (to - from) * BLOCK);
  const copying = copier.copyBatch(
    RUNS.map(([from, to]) => ({ from: blockIndex(from), to: blockIndex(to) })),
  );
  return { bitmap, copier, copying, given: given[0]!, end: end!, settled, counted };
};

const never = (): never => {
  throw new Error('not in bulk');
};

t.test('runs are given whole, cleared before', async (t) => {
  const { copier, copying, given, end, bitmap, settled, counted } = world();
  t.match(given.batch, { image: 3, fd: 42 });
  t.same([...given.batch.runs], [0, BLOCK, 4 * BLOCK, 2 * BLOCK, 9 * BLOCK, BLOCK]);
  t.equal(given.dirty, 0, 'what is written from now on is marked anew');
  t.equal(copier.inFlightBytes, 4 * BLOCK);
  end.resolve(3 * BLOCK);
  t.equal(await copying, 3 * BLOCK);
  given.settled('acked', 2, 2 * BLOCK);
  t.equal(copier.inFlightBytes, BLOCK);
  given.settled('acked', 1, BLOCK);
  t.equal(copier.inFlightBytes, 0);
  t.equal(bitmap.dirtyBlocks, 0);
  t.same(settled, [`acked ${3 * BLOCK}`, `acked ${BLOCK}`]);
  t.same(counted, [`sent ${3 * BLOCK} copy`, `acked ${2 * BLOCK}`, `acked ${BLOCK}`]);
});

t.test('runs that are lost are dirty again, those before them are not', async (t) => {
  const { copier, copying, given, end, bitmap } = world();
  given.settled('acked', 1, BLOCK);
  end.resolve(BLOCK);
  await copying;
  given.settled('lost', 2, 0);
  t.equal(copier.inFlightBytes, 0);
  t.same([bitmap.nextDirty(0), bitmap.runEnd(4, 9), bitmap.nextDirty(6)], [4, 6, 9]);
  t.equal(bitmap.dirtyBlocks, 3);
});

t.test('runs of a batch that fails are dirty again', async (t) => {
  const { copier, copying, given, end, bitmap } = world();
  given.settled('acked', 2, 3 * BLOCK);
  end.reject(new Error('cannot read'));
  await t.rejects(copying, { message: 'cannot read' });
  t.equal(copier.inFlightBytes, 0);
  t.same([bitmap.nextDirty(0), bitmap.dirtyBlocks], [9, 1]);
});
