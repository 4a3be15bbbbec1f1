/** A short piece of `npm run test:deadlines`: a migration yields a hot link to other traffic, and comes back. */
import t from 'tap';
import { MB } from './experiment.js';
import { runHotLink } from './hot-link.js';

const PERIOD_MS = 2000;
/** Window of the meter and rise of the thresholds: on a busy machine they come on top of the two periods. */
const NOTICE_MS = 1500;

t.test(
  'a migration yields a link that others want within two periods of seeing it, and takes it back when they stop',
  async (t) => {
    const result = await runHotLink(
      { t, seed: 1, say: () => undefined },
      {
        name: 'hot-link',
        rate: 10 * MB,
        period: PERIOD_MS,
        quietPeriods: 1,
        hotSeconds: 11.5,
        cooledSeconds: 10,
        load: { connections: 4 },
        quick: true,
      },
    );
    t.ok(
      result.yieldedAfter <= (2 * PERIOD_MS + NOTICE_MS) / 1000,
      `limited after ${result.yieldedAfter.toFixed(2)} s`,
    );
    t.ok(
      result.loadShareYielded >= 0.9,
      `the others have ${result.loadShareYielded.toFixed(2)} of their rate`,
    );
    t.ok(result.backAfter <= 7, `no limit again after ${result.backAfter.toFixed(2)} s`);
    t.ok(
      result.after >= 0.9 * result.before,
      `${result.after.toFixed(2)} of the link after it, ${result.before.toFixed(2)} before`,
    );
  },
);
