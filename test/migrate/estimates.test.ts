/** What is reported of a migration that goes on under a guest's writes, and how well its end is predicted. */
import t from 'tap';
import { makeSparseImage } from '../support/files.js';
import { startPair } from '../support/pair.js';
import { atHalf, predict } from '../support/predictions.js';
import { seedFromEnvironment } from '../support/random.js';
import { SteadyWriter } from '../support/steady-writer.js';
import { waitFor } from '../support/wait-for.js';

const IMAGE = 'vm.raw';
const SIZE = 60e6;
const NET = 10e6;
const GUEST = 2e6;
/** Blocks of this part of the image are written to again and again. */
const REGION = { offset: 6000 * 4096, length: 3000 * 4096 };
/** What tells a report from a wrong one on any machine; how good it is, `npm run bench -- estimates` says. */
const SANE = 0.3;

t.test(
  'the end of a migration under a steady load is predicted at half, and the write rate is the guest’s',
  async (t) => {
    const seed = seedFromEnvironment();
    t.comment(`seed ${seed}`);
    const pair = await startPair(t);
    makeSparseImage(pair.source.daemon.below(IMAGE), SIZE, [{ offset: 0, length: SIZE }]);
    const guest = new SteadyWriter(REGION, GUEST, seed);
    t.teardown(() => guest.stop());
    guest.start(pair.source.daemon.at(IMAGE));
    await waitFor(() => guest.windows.length > 0, 'the guest writes');
    const half = atHalf(await predict(pair, IMAGE, NET));
    const { writeRate, bytesLeft, load } = half.snapshot;

    // Smoothed, so between the least and the most that it really was.
    const [least, most] = [Math.min(...guest.windows), Math.max(...guest.windows)];
    for (const rate of [writeRate, load!.writeRate])
      t.ok(
        rate > least * (1 - SANE) && rate < most * (1 + SANE),
        `writes ${rate}, really ${least} to ${most}`,
      );
    t.ok(load!.dirtyRate < load!.netRate, 'rewriting a dirty block dirties nothing');
    // No sooner than the link carries what is left, and no later than if each write made another block dirty.
    const soonest = bytesLeft / NET;
    const latest = bytesLeft / (Math.min(load!.netRate, NET) - load!.writeRate);
    t.ok(
      half.expected >= soonest && half.expected <= latest,
      `${half.expected} s, of ${soonest} to ${latest}`,
    );
  },
);
