import t from 'tap';
import { WaitReasons } from '../../src/broker/scheduler/wait-reasons.js';
import { millis } from '../../src/leaves/units.js';
import { ManualClock } from '../support/manual-clock.js';
import { BEGIN, SchedulerWorld } from '../support/scheduler-world.js';

/** What of these reasons, given one after the other in the same second, is recorded. */
const recorded = (...reasons: readonly string[]): readonly string[] => {
  const noted: string[] = [];
  const book = { get: () => ({ reason: '' }), note: (_id: string, text: string) => void noted.push(text) };
  const waits = new WaitReasons(book as never, new ManualClock(BEGIN));
  for (const reason of reasons) waits.note({ id: 't1', action: 'wait', cause: 'hot', reason });
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
