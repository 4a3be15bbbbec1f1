/** Two rounds of the cutover soak: there and back again under fio's verifying writers. */
import t from 'tap';
import { MiB } from '../../src/leaves/units.js';
import { soakRound } from '../soak/cutover-round.js';
import { startPair } from '../support/pair.js';
import { Random, seedFromEnvironment } from '../support/random.js';

/** How long a round takes is the machine's; `npm run test:soak` varies the plan. */
const PLAN = { image: 'vm.raw', netLimit: 80 * MiB, passesInSync: 1 };

t.test('an image migrates there and back under verifying load', async (t) => {
  const seed = seedFromEnvironment();
  t.comment(`seed ${seed}`);
  const pair = await startPair(t);
  const there = await soakRound(t, pair, new Random(seed), { ...PLAN, again: false });
  t.same(there.errors, [], JSON.stringify(there.passes));
  const back = { source: pair.target, target: pair.source };
  const again = await soakRound(t, back, new Random(seed + 1), { ...PLAN, again: true });
  t.same(again.errors, [], JSON.stringify(again.passes));
  await pair.source.daemon.stop();
  await pair.target.daemon.stop();
});
