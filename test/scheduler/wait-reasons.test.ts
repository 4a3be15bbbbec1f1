import t from 'tap';
import { TaskStore } from '../../src/broker/scheduler/task-store.js';
import { WaitReasons } from '../../src/broker/scheduler/wait-reasons.js';
import { millis } from '../../src/leaves/units.js';
import { ManualClock } from '../support/manual-clock.js';
import { BEGIN, SchedulerWorld } from '../support/scheduler-world.js';

/** What of these reasons, given one after the other in the same second, is recorded. */
const recorded = (...reasons: readonly string[]): readonly string[] => {
  const noted: string[] = [];
  const book = {
    get: () => ({ reason: '' }),
    noteReasons: (reasons: readonly { readonly reason: string }[]) =>
      void noted.push(...reasons.map(({ reason }) => reason)),
  };
  const waits = new WaitReasons(book as never, new ManualClock(BEGIN));
  for (const reason of reasons) waits.note([{ id: 't1', action: 'wait', cause: 'hot', reason }]);
  return noted;
};

t.test('a reason of which only numbers and their units change is the same reason', async (t) => {
  for (const [first, second] of [
    ['opens in 1h', 'opens in 59m59s'],
    ['opens in 10 s', 'opens in 9.9 s'],
    ['opens in 1.0 s', 'opens in 990 ms'],
    ['link-b is hot (1.0 GB/s of 5.0 GB/s, x)', 'link-b is hot (990 MB/s of 5.0 GB/s, x)'],
    ['38 KB left', '980 B left'],
  ] as const)
    t.same(recorded(first, second), [first], `${first} | ${second}`);
});

t.test('one of which words change is another', async (t) => {
  for (const reasons of [
    ['link-b is hot', 'link-c is hot'],
    ['2 hosts are before it', '2 moves are before it'],
  ])
    t.same(recorded(...reasons), reasons);
});

t.test('the time to a window is recorded once a minute from the beginning', async (t) => {
  const world = await SchedulerWorld.open(t);
  const { id } = await world.submit({ notBefore: millis(BEGIN + 3_600_000) });
  await world.until(() => /window opens/.test(world.scheduler.get(id).reason), 'it waits');
  await world.clock.advance(50_000);
  t.equal(world.texts(id).filter((text) => /window opens/.test(text)).length, 1);
});

t.test('the reasons of many tasks that are due together are put on disk together', async (t) => {
  const world = await SchedulerWorld.open(t);
  const ids: string[] = [];
  for (const vm of ['vm1', 'vm2', 'vm3', 'vm4'])
    ids.push((await world.submit({ vm, images: [`${vm}.raw`], notBefore: millis(BEGIN + 3_600_000) })).id);
  const isNoted = (id: string, at: number): boolean =>
    world.scheduler.decisions(id).some((decision) => (decision.lastAt ?? decision.at) >= at);
  await world.until(
    () => ids.every((id) => /window opens/.test(world.scheduler.get(id).reason)),
    'they wait',
  );
  // From here on all are due at once.
  await world.clock.advance(61_000);
  const { prototype } = TaskStore;
  const { save, saveAll } = prototype;
  t.teardown(() => Object.assign(prototype, { save, saveAll }));
  let transactions = 0;
  for (const [name, write] of Object.entries({ save, saveAll }))
    Object.assign(prototype, {
      [name](this: TaskStore, ...args: unknown[]) {
        transactions++;
        (write as (...args: unknown[]) => void).apply(this, args);
      },
    });
  const at = world.clock.wall();
  await world.until(() => ids.some((id) => isNoted(id, at)), 'the reasons are recorded again');
  t.ok(
    ids.every((id) => isNoted(id, at)),
    'of all',
  );
  t.equal(transactions, 1);
});
