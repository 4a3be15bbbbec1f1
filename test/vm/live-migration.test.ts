import t from 'tap';
import { seedFromEnvironment } from '../support/random.js';
import { DEFAULT_CASE, runVmCase } from './live-migration.js';

t.test('G1, G2: a virtual machine moves live and loses no record that it flushed', async (t) => {
  const report = await runVmCase(t, DEFAULT_CASE, seedFromEnvironment());
  t.comment(JSON.stringify(report));
  t.same(report.faults, []);
});
