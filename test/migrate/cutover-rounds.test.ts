/** Two rounds of the cutover soak: there and back again under fio's verifying writers. */
import t from 'tap';
import { randomPlan, soakRound } from '../soak/cutover-round.js';
import { startPair } from '../support/pair.js';
import { Random, seedFromEnvironment } from '../support/random.js';

t.test('an image migrates there and back under verifying load', async (t) => {
  const seed = seedFromEnvironment();
  t.comment(`seed ${seed}`);
  const pair = await startPair(t);
  const there = await soakRound(t, pair, new Random(seed), randomPlan(new Random(seed), 'vm.raw', false));
  t.same(there.errors, [], JSON.stringify(there.passes));
  const back = { source: pair.target, target: pair.source };
  const again = await soakRound(
    t,
    back,
    new Random(seed + 1),
    randomPlan(new Random(seed + 1), 'vm.raw', true),
  );
  t.same(again.errors, [], JSON.stringify(again.passes));
  await pair.source.daemon.stop();
  await pair.target.daemon.stop();
});
