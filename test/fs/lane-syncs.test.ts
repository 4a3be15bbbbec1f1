/** Flushes that are done here and by the target, and answered once both are done, by whoever is second. */
import t from 'tap';
import { LANE_SYNCS_WORDS, LaneSyncs } from '../../src/fs/lane-syncs.js';

const FUSE_FD = 77;
/** As many as may be under way. */
const ENTRIES = LANE_SYNCS_WORDS / 16;

const fresh = (): LaneSyncs => new LaneSyncs(new SharedArrayBuffer(LANE_SYNCS_WORDS * 4), 0);
const begin = (syncs: LaneSyncs, image: number, sequence: number, isWrite = false): number =>
  syncs.begin(image, sequence, FUSE_FD, sequence, image, isWrite);

/** Sequence numbers of those that were answered by `settle`. */
const settled = (syncs: LaneSyncs, image: number, sequence: number): number[] => {
  const answered: number[] = [];
  syncs.settle(image, sequence, (fuseFd, low, high) => {
    if (fuseFd !== FUSE_FD || high !== image) throw new Error('the answer goes elsewhere');
    answered.push(low);
  });
  return answered;
};

t.test('whoever is second answers, with what came of it here', async (t) => {
  const syncs = fresh();
  const [first, second] = [begin(syncs, 0, 1), begin(syncs, 0, 2)];
  t.notOk(syncs.made(first, -5), 'the target has not done it');
  t.same(settled(syncs, 0, 0), [], 'nor is it the one that it has');
  const results: unknown[] = [];
  syncs.settle(0, 2, (...answer) => results.push(answer));
  t.same(results, [[FUSE_FD, 1, 0, -5, false]], 'the other is still being done here');
  t.same(settled(syncs, 0, 2), [], 'nothing is settled twice');
  t.ok(syncs.made(second, 0), 'so who does it answers');
  const write = begin(syncs, 0, 3, true);
  syncs.made(write, 4096);
  syncs.settle(0, 3, (...answer) => results.push(answer));
  t.same(results[1], [FUSE_FD, 3, 0, 4096, true], 'a durable write has a length');
});

t.test('one that the target has done says nothing of later ones, nor of other images', async (t) => {
  const syncs = fresh();
  for (const [image, sequence] of [
    [0, 1],
    [1, 2],
    [0, 3],
    [0, 4],
  ] as const)
    syncs.made(begin(syncs, image, sequence), 0);
  t.same(settled(syncs, 0, 3), [1, 3]);
  t.equal(syncs.oldest, 2, 'the one that waits for the longest');
  t.same(settled(syncs, 1, 9), [2]);
  t.equal(syncs.oldest, 4);
});

t.test('when the target is lost, all are settled', async (t) => {
  const syncs = fresh();
  syncs.made(begin(syncs, 0, 1), 0);
  const making = begin(syncs, 1, 2);
  const answered: number[] = [];
  syncs.lose((_fd, low) => answered.push(low));
  t.same(answered, [1]);
  t.equal(syncs.oldest, 0);
  t.ok(syncs.made(making, 0));
});

t.test('there is room for a few, again and again', async (t) => {
  const syncs = fresh();
  for (let round = 0; round < 3; round++) {
    const entries = Array.from({ length: ENTRIES }, (_, i) => begin(syncs, 0, round * ENTRIES + i + 1));
    t.ok(syncs.full);
    t.equal(begin(syncs, 0, 1000), -1, 'one more has to go another way');
    for (const entry of entries) syncs.made(entry, 0);
    t.equal(settled(syncs, 0, 1000).length, ENTRIES);
    t.notOk(syncs.full);
  }
});
