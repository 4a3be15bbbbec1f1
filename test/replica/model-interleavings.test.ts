import t from 'tap';
import type { Break } from './model.js';
import { Model } from './model.js';

const SEEDS = Number(process.env['MIGRATEFS_MODEL_SEEDS'] ?? 2000);
const FIRST_SEED = Number(process.env['MIGRATEFS_MODEL_FIRST_SEED'] ?? 1);
/** A broken rule must be noticed within this many seeds. */
const BREAK_SEEDS = 3000;

t.setTimeout(200_000);

t.test('G1 G2 G3 G4: no interleaving loses or reorders a write', async (t) => {
  const failures: string[] = [];
  for (let seed = FIRST_SEED; seed < FIRST_SEED + SEEDS && failures.length === 0; seed++) {
    const model = new Model(seed, 'none');
    try {
      await model.run();
    } catch (error) {
      t.comment(model.trace.slice(-80).join('\n'));
      failures.push(`seed ${seed}: ${(error as Error).message}`);
    }
  }
  t.strictSame(failures, [], `${SEEDS} seeds from ${FIRST_SEED}`);
});

const breaks: [Break, string][] = [
  ['mark-before-write', 'marking before writing'],
  ['clear-after-read', 'clearing after reading'],
  ['no-grace', 'no grace period at the phase edges'],
  ['no-re-mark', 'not marking again what was not acknowledged'],
  ['no-extent-lock', 'ignoring the extent locks'],
  ['perform-while-offered', 'performing changes before the target has answered the offer'],
  ['refuse-while-offered', 'refusing changes before the target has answered the offer'],
];
for (const [broken, description] of breaks) {
  t.test(`the model notices: ${description}`, async (t) => {
    for (let seed = 1; seed <= BREAK_SEEDS; seed++) {
      try {
        await new Model(seed, broken).run();
      } catch (error) {
        t.match((error as Error).message, /G[1234]|dirty/, `noticed with seed ${seed}`);
        return;
      }
    }
    t.fail(`not noticed within ${BREAK_SEEDS} seeds`);
  });
}
