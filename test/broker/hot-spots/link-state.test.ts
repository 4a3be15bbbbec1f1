import t from 'tap';
import type { LinkSample, LinkState } from '../../../src/broker/hot-spots/link-state.js';
import { isHot, nextLinkState } from '../../../src/broker/hot-spots/link-state.js';
import { millis } from '../../../src/leaves/units.js';

const THRESHOLDS = { upper: 0.9, lower: 0.75, rise: millis(1000), fall: millis(2000), others: 0.1 };
const INTERVAL = 500;

/** Whether it is hot after each sample of utilisation and others' part. */
const judged = (samples: readonly (readonly [number, number])[]): boolean[] => {
  let state: LinkState | undefined;
  return samples.map(([utilisation, others], i) => {
    const sample: LinkSample = { at: millis(i * INTERVAL), utilisation, others };
    state = nextLinkState(state, sample, THRESHOLDS, millis(3000));
    return isHot(state);
  });
};

const times = <T>(count: number, value: T): T[] => Array<T>(count).fill(value);

t.test('hot while others fill it, for the time it takes to rise and to fall', async (t) => {
  const hot = judged([...times(4, [1, 1] as const), ...times(6, [0, 0] as const)]);
  t.same(hot, [false, false, true, true, true, true, true, true, false, false]);
});

t.test('what others wanted before it cooled does not make it hot when this host fills it next', async (t) => {
  const load = times(4, [1, 1] as const);
  const ending = [[0.49, 0.49], ...times(4, [0, 0])] as [number, number][];
  // Of its own first moment nothing is known: all of it looks like others'.
  const own = [[0.16, 0.16], ...times(8, [1, 0])] as [number, number][];
  const hot = judged([...load, ...ending, ...own]);
  t.equal(hot.lastIndexOf(true), load.length + 3, 'until two seconds after the load');
});

t.test(
  'a link that own migrations fill becomes hot half the time to rise after others want it',
  async (t) => {
    const hot = judged([...times(6, [1, 0] as const), ...times(3, [1, 0.3] as const)]);
    t.same(hot, [...times(7, false), true, true]);
    const brief = judged([...times(6, [1, 0] as const), [1, 0.3], ...times(4, [1, 0] as const)]);
    t.notOk(brief.includes(true), 'a single sample may be a matter of when each was counted');
  },
);
