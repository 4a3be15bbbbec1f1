/**
 * A short piece of `npm run test:deadlines`: a migration yields a hot link to other traffic, and comes back. What the
 * other traffic gains, and how soon, is measured there; here only what a slow machine does not change.
 */
import t from 'tap';
import { MB } from './experiment.js';
import { runHotLink } from './hot-link.js';

t.test('a migration yields a link that others want, and takes it back when they stop', async (t) => {
  const result = await runHotLink(
    { t, seed: 1, say: () => undefined },
    {
      name: 'hot-link',
      rate: 10 * MB,
      period: 1000,
      quietPeriods: 1,
      hotSeconds: 0,
      cooledSeconds: 30,
      load: { connections: 4 },
      quick: true,
    },
  );
  // A sixteenth, and the headers of its packets.
  t.ok(result.yielded <= 0.1, `${result.yielded.toFixed(2)} of the link while others want it`);
  t.ok(
    result.after >= 3 * result.yielded,
    `${result.after.toFixed(2)} of the link after it, ${result.yielded.toFixed(2)} while others wanted it`,
  );
});
