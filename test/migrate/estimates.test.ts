/** What is reported of a migration that goes on under a guest's writes, and how well its end is predicted. */
import t from 'tap';
import { makeSparseImage } from '../support/files.js';
import { runFio } from '../support/fio.js';
import { startPair } from '../support/pair.js';
import { atHalf, errorOf, type Predicted, predict } from '../support/predictions.js';

const IMAGE = 'vm.raw';
const SIZE = 60e6;
const NET = 10e6;
const GUEST = 2e6;
/** What tells a report from a wrong one on any machine; how good it is, `npm run bench -- estimates` says. */
const SANE = 0.3;

t.test(
  'the end of a migration under a steady load is predicted at half, and the write rate is the guest’s',
  async (t) => {
    const pair = await startPair(t);
    makeSparseImage(pair.source.daemon.below(IMAGE), SIZE, [{ offset: 0, length: SIZE }]);
    const stop = new AbortController();
    let load: Promise<unknown> = Promise.resolve();
    t.teardown(async () => {
      stop.abort();
      await load;
    });
    // Blocks of 64 KiB within a fifth of the image are written to again and again, 4 KiB at a time.
    const write = (): void => {
      load = runFio(
        {
          filename: pair.source.daemon.at(IMAGE),
          rw: 'randwrite',
          bs: '4k',
          norandommap: true,
          offset: '40%',
          size: '20%',
          rate: GUEST,
          time_based: true,
          runtime: 100,
          fallocate: 'none',
          thread: true,
        },
        stop.signal,
      ).catch((error: Error) => error);
    };
    const run: Predicted = await predict(pair, IMAGE, NET, write);
    const half = atHalf(run);
    const error = errorOf(run, half);
    t.ok(Math.abs(error) <= SANE, `${(error * 100).toFixed(1)} % of ${run.seconds.toFixed(1)} s`);
    const { writeRate, load: reported } = half.snapshot;
    t.ok(Math.abs(writeRate - GUEST) < GUEST * SANE, `writes ${writeRate}`);
    t.ok(Math.abs(reported!.writeRate - GUEST) < GUEST * SANE, `writes ${reported!.writeRate}`);
    t.ok(reported!.dirtyRate < reported!.netRate, 'rewriting a dirty block dirties nothing');
  },
);
