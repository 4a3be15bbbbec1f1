import t from 'tap';
import { seedFromEnvironment } from '../support/random.js';
import { runKills } from '../support/scheduler-kills.js';

t.test('a scheduler that is killed at any moment loses no task and starts none twice', async (t) => {
  const seed = seedFromEnvironment();
  t.comment(`MIGRATEFS_SEED=${seed}`);
  const { faults, ends, killedIn, seconds } = await runKills(t, { tasks: 15, kills: 3, hosts: 2, seed });
  t.comment(`${JSON.stringify(ends)}, killed in ${JSON.stringify(killedIn)}, in ${seconds.toFixed(1)} s`);
  t.same(faults, []);
});
