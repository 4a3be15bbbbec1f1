import t from 'tap';
import { MoveSlots } from '../../src/broker/scheduler/move-slots.js';
import { Random, seedFromEnvironment } from '../support/random.js';
import { waitFor } from '../support/wait-for.js';

const never = (): AbortSignal => new AbortController().signal;

t.test('a host has as many moves as it has places; the next gets the one that is given back', async (t) => {
  const slots = new MoveSlots(1);
  const first = await slots.take(['a', 'b'], never());
  t.notOk(slots.isFree('b'));
  const events: string[] = [];
  const second = slots.take(['b', 'c'], never()).then((release) => {
    events.push('second');
    return release;
  });
  // Asked for after it, from hosts that are free.
  const third = await slots.take(['d', 'e'], never());
  events.push('third');
  first();
  (await second)();
  third();
  t.same(events, ['third', 'second']);
});

t.test('who gives up waiting holds nothing', async (t) => {
  const slots = new MoveSlots(1);
  const first = await slots.take(['b'], never());
  const impatient = new AbortController();
  const second = slots.take(['a', 'b'], impatient.signal);
  impatient.abort(new Error('enough'));
  await t.rejects(second, { message: 'enough' });
  const third = await slots.take(['a'], never());
  first();
  (await slots.take(['a', 'b'].slice(1), never()))();
  third();
  await t.rejects(slots.take(['a'], impatient.signal), { message: 'enough' });
});

t.test('moves in all directions end, and never are more than allowed under way', async (t) => {
  const seed = seedFromEnvironment();
  t.comment(`MIGRATEFS_SEED=${seed}`);
  const random = new Random(seed);
  const hosts = ['a', 'b', 'c', 'd'];
  const slots = new MoveSlots(2);
  const under = new Map<string, number>();
  let most = 0;
  const move = async (): Promise<void> => {
    const source = random.pick(hosts);
    const target = random.pick(hosts.filter((host) => host !== source));
    const release = await slots.take([source, target], never());
    for (const host of [source, target]) under.set(host, (under.get(host) ?? 0) + 1);
    most = Math.max(most, ...under.values());
    await new Promise((resolve) => setImmediate(resolve));
    for (const host of [source, target]) under.set(host, under.get(host)! - 1);
    release();
  };
  await Promise.all(Array.from({ length: 60 }, move));
  // How many meet is up to the timers of the queue.
  t.ok(most >= 1 && most <= 2, `${most} at a time`);
  const both = await Promise.all([slots.take(['a'], never()), slots.take(['a'], never())]);
  t.notOk(slots.isFree('a'), 'two at a time are possible, and no more');
  for (const release of both) release();
});

t.test(
  'a place stays taken however long the move takes, and nothing is kept of hosts without one',
  async (t) => {
    const { now } = Date;
    const { setInterval } = globalThis;
    t.teardown(() => Object.assign(globalThis, { setInterval }) && Object.assign(Date, { now }));
    const repeated: (() => void)[] = [];
    globalThis.setInterval = ((callback: () => void) => {
      repeated.push(callback);
      return setInterval(() => {}, 2 ** 30).unref();
    }) as typeof setInterval;
    const slots = new MoveSlots(1);
    const release = await slots.take(['a', 'b'], never());
    t.equal(slots.hosts, 2);
    // An hour later, as far as anything can tell that tidies up now and then.
    Date.now = () => now() + 3_600_000;
    for (const callback of repeated) callback();
    // Nothing announces that it was left alone.
    await new Promise((resolve) => setTimeout(resolve, 50));
    t.notOk(slots.isFree('a'));
    let taken = false;
    const second = slots.take(['a'], never()).then((giveBack) => {
      taken = true;
      return giveBack;
    });
    await new Promise((resolve) => setImmediate(resolve));
    t.equal(taken, false);
    release();
    (await second)();
    await waitFor(() => slots.hosts === 0, 'nothing is kept');
    t.ok(slots.isFree('a'));
  },
);
