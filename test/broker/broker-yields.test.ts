/** A broker that is not in danger gives bandwidth up: who makes it, for how long, and who cannot. */
import t from 'tap';
import { BackOffRequests } from '../../src/broker/back-off-requests.js';
import { millis, UNLIMITED } from '../../src/leaves/units.js';
import { BrokerWorld, MB } from '../support/broker-world.js';
import { ManualClock } from '../support/manual-clock.js';
import type { Teardown } from '../support/scratch.js';

/** `m1` crosses eth0 and tor3, and decides once a minute. */
const overTwoLinks = async (t: Teardown) => {
  const world = new BrokerWorld();
  t.teardown(() => world.host.close());
  world.hotSpots.towards.set('host-b', 'eth0');
  const migration = world.begin('m1', { choice: { period: millis(60_000) } });
  await world.host.setPath('m1', [{ link: 'tor3', sharers: [] }]);
  return { world, migration };
};

t.test('a request is obeyed at the next decision, renewed by asking again, and expires', async (t) => {
  const world = new BrokerWorld();
  t.teardown(() => world.host.close());
  const migration = world.begin('m1');
  await world.periods(3);
  t.equal(migration.netLimit, UNLIMITED);
  t.equal(await world.ask('m1'), 'obeyed');
  t.equal(migration.netLimit, UNLIMITED, 'nothing before the next decision');
  await world.periods(1);
  t.equal(migration.netLimit, 20 * MB);
  t.match(await world.host.get('m1'), { askedBy: ['other'], netLimit: 20 * MB, zone: 'calm' });
  t.equal(await world.ask('m1'), 'obeyed');
  await world.periods(1);
  t.equal(migration.netLimit, 10 * MB);
  // Valid for a second and a half: one more decision sees it.
  await world.periods(2);
  const least = migration.netLimit;
  t.match(await world.host.get('m1'), { askedBy: [] });
  // Held for a period, then raised, and removed after more than five quiet ones.
  await world.periods(3);
  t.ok(migration.netLimit > least && migration.netLimit < UNLIMITED, `${migration.netLimit}`);
  await world.periods(3);
  t.equal(migration.netLimit, UNLIMITED);
});

t.test('a request counts at the next decision even if it lapses before, and then no more', async (t) => {
  const world = new BrokerWorld();
  t.teardown(() => world.host.close());
  // The one that asks decides each second, the one that is asked each minute.
  const migration = world.begin('m1', { choice: { period: millis(60_000) } });
  await world.clock.advance(10_000);
  t.equal(await world.ask('m1'), 'obeyed');
  await world.clock.advance(60_000);
  t.match(await world.host.get('m1'), { askedBy: ['other'], netLimit: 20 * MB });
  await world.clock.advance(60_000);
  t.match(await world.host.get('m1'), { askedBy: [] }, 'once');
  t.equal(migration.netLimit, 20 * MB, 'held for a period');
});

t.test('a request that no decision has counted is forgotten after ten minutes', async (t) => {
  const clock = new ManualClock(0);
  const requests = new BackOffRequests(clock);
  const validFor = millis(1_500);
  const request = { migrationId: 'm1', from: 'other', link: 'tor3', validFor, ratio: 1 };
  requests.add(request);
  await clock.advance(599_000);
  t.same(requests.count(), ['other']);
  t.same(requests.count(), [], 'counted, and lapsed');
  requests.add(request);
  await clock.advance(600_000);
  t.same(requests.count(), []);
});

t.test('a hot link of the path makes it yield within two periods, another link does not', async (t) => {
  const world = new BrokerWorld();
  t.teardown(() => world.host.close());
  world.hotSpots.towards.set('host-b', 'eth0');
  const migration = world.begin('m1');
  world.hotSpots.set('eth1', { hot: true, saturated: true });
  await world.periods(3);
  t.equal(migration.netLimit, UNLIMITED);
  world.hotSpots.set('eth0', { hot: true, saturated: true });
  await world.periods(2);
  t.ok(migration.netLimit <= 20 * MB, `${migration.netLimit}`);
  t.match(await world.host.get('m1'), { hotLinks: ['eth0'], reason: /eth0/ });
  world.hotSpots.set('eth0', { saturated: true });
  await world.periods(7);
  t.equal(migration.netLimit, UNLIMITED, 'saturated by migrations alone is not hot');
});

t.test(
  'it yields as soon as a link of the path becomes hot, however long the period, once a period',
  async (t) => {
    const { world, migration } = await overTwoLinks(t);
    await world.clock.advance(10_000);
    t.equal(migration.netLimit, UNLIMITED);
    world.hotSpots.set('eth1', { hot: true, saturated: true });
    await world.clock.advance(1);
    t.equal(migration.netLimit, UNLIMITED, 'another link');
    world.hotSpots.set('eth0', { hot: true, saturated: true });
    await world.clock.advance(1);
    t.equal(migration.netLimit, 20 * MB);
    for (const [cool, hot] of [
      ['eth0', 'tor3'],
      ['tor3', 'eth0'],
      ['eth0', 'eth0'],
      ['eth0', 'tor3'],
    ] as const) {
      world.hotSpots.set(cool, {});
      await world.clock.advance(5_000);
      world.hotSpots.set(hot, { hot: true, saturated: true });
      await world.clock.advance(5_000);
    }
    t.equal(migration.netLimit, 20 * MB, 'links that come and go halve nothing more often');
    await world.clock.advance(20_000);
    t.equal(migration.netLimit, 10 * MB, 'a period after the early look');
  },
);

t.test(
  'quiet periods begin when the last hot link of the path cools, not up to a period later',
  async (t) => {
    const { world, migration } = await overTwoLinks(t);
    world.hotSpots.set('eth0', { hot: true, saturated: true });
    world.hotSpots.set('tor3', { hot: true, saturated: true });
    await world.clock.advance(70_000);
    const decisions = async (): Promise<number> => (await world.host.get('m1')).decisions;
    const before = await decisions();
    world.hotSpots.set('eth0', { saturated: true });
    await world.clock.advance(1);
    t.equal(await decisions(), before, 'the other one is hot still');
    world.hotSpots.set('tor3', {});
    await world.clock.advance(1);
    t.equal(await decisions(), before + 1);
    t.match((await world.host.get('m1')).reason, /quiet for 1 of 6/);
    await world.clock.advance(5 * 60_000);
    t.equal(migration.netLimit, UNLIMITED, 'after five periods, of which the first one began at once');
  },
);

t.test('a link that cools changes nothing while somebody asks', async (t) => {
  const world = new BrokerWorld();
  t.teardown(() => world.host.close());
  world.hotSpots.towards.set('host-b', 'eth0');
  const migration = world.begin('m1');
  world.hotSpots.set('eth0', { hot: true, saturated: true });
  await world.periods(2);
  const { netLimit } = migration;
  await world.ask('m1');
  world.hotSpots.set('eth0', {});
  await world.clock.advance(1);
  t.equal(migration.netLimit, netLimit, 'not halved early for it');
});

t.test('never slower than the floor', async (t) => {
  const world = new BrokerWorld();
  t.teardown(() => world.host.close());
  const migration = world.begin('m1', { choice: { floor: (3 * MB) as never } });
  for (let period = 0; period < 12; period++) {
    await world.ask('m1');
    await world.periods(1);
    t.ok(migration.netLimit >= 3 * MB);
  }
  t.equal(migration.netLimit, 3 * MB);
});

t.test('only the migration that was asked yields', async (t) => {
  const world = new BrokerWorld();
  t.teardown(() => world.host.close());
  const [asked, other] = [world.begin('m1'), world.begin('m2')];
  await world.ask('m1');
  await world.periods(1);
  t.equal(asked.netLimit, 20 * MB);
  t.same(
    other.calls.filter((call) => call !== 'observe'),
    [],
  );
});

t.test('in danger it refuses, ignores hot links, and asks on each saturated link', async (t) => {
  const world = new BrokerWorld();
  t.teardown(() => world.host.close());
  world.hotSpots.towards.set('host-b', 'eth0');
  world.hotSpots.set('eth0', { hot: true, saturated: true });
  // 100 GB at 40 MB/s are 2,500 s: a ratio of 2 where danger is below 3.
  const migration = world.begin('m1', { deadlineIn: 5_000_000 });
  await world.host.setPath('m1', [
    { link: 'calm', sharers: [{ server: 'host-c:7070', migrationId: 'm3' }] },
    { link: 'full', sharers: [{ server: 'host-d:7070', migrationId: 'm4' }] },
    { link: 'unknown', sharers: [{ server: 'host-e:7070', migrationId: 'm5' }] },
  ]);
  world.hotSpots.set('calm', {});
  world.hotSpots.set('full', { saturated: true });
  await world.periods(2);
  t.equal(await world.ask('m1', { link: 'eth0' }), 'in-danger');
  await world.periods(2);
  t.equal(migration.netLimit, UNLIMITED);
  const asked = world.peers.asked.map(
    ({ server, request }) => `${request.migrationId} ${request.link} ${server}`,
  );
  t.same([...new Set(asked)].sort(), ['m4 full host-d:7070', 'm5 unknown host-e:7070']);
  t.match(world.peers.asked[0]?.request, { from: 'm1', validFor: 1_500 });
  t.ok(world.peers.asked.filter(({ request }) => request.migrationId === 'm4').length >= 3, 'each period');
});

t.test('a request for a link that a known path does not cross is refused', async (t) => {
  const world = new BrokerWorld();
  t.teardown(() => world.host.close());
  world.begin('m1');
  t.equal(await world.ask('m1', { link: 'anything' }), 'obeyed', 'without a path, who knows');
  await world.host.setPath('m1', [{ link: 'tor1', sharers: [] }]);
  await t.rejects(world.ask('m1', { link: 'tor3' }), { code: 'INVALID_ARGUMENT', message: /cross tor3/ });
  t.equal(await world.ask('m1', { link: 'tor1' }), 'obeyed');
});

t.test('who asks is bounded in number, and each in time', async (t) => {
  const world = new BrokerWorld();
  t.teardown(() => world.host.close());
  const migration = world.begin('m1');
  for (let i = 0; i < 64; i++) t.equal(await world.ask('m1', { from: `o${i}` }), 'obeyed');
  await t.rejects(world.ask('m1', { from: 'one more' }), { code: 'RESOURCE_EXHAUSTED' });
  t.equal(await world.ask('m1', { from: 'o0', validFor: millis(10_000_000) }), 'obeyed', 'renewed');
  await world.clock.advance(2_000);
  t.equal(await world.ask('m1', { from: 'one more' }), 'obeyed', 'the others have expired');
  await world.clock.advance(590_000);
  t.match(await world.host.get('m1'), { askedBy: ['o0'] });
  await world.clock.advance(20_000);
  t.equal(migration.netLimit, UNLIMITED, 'nobody is obeyed for longer than ten minutes without asking again');
});
