import t from 'tap';
import { seedFromEnvironment } from '../support/random.js';
import { DEFAULT_CASE, runOnStaleCopy, runVmCase } from './live-migration.js';

t.test('G1, G2: a virtual machine moves live and loses no record that it flushed', async (t) => {
  const seed = seedFromEnvironment();
  t.comment(`MIGRATEFS_SEED=${seed}`);
  const report = await runVmCase(t, DEFAULT_CASE, seed);
  t.comment(JSON.stringify(report));
  t.same(report.faults, []);
});

t.test('the same VM on a stale copy of its disk: the verifier finds what is missing', async (t) => {
  const faults = await runOnStaleCopy(t, seedFromEnvironment());
  t.match(faults.join('\n'), /slot \d+ of disk 0 holds record \d+, acknowledged was \d+/);
});
