/** The brokers of a host: which migrations have one, what they know by themselves, and what is kept of them. */
import t from 'tap';
import { bytesPerSecond, UNLIMITED } from '../../src/leaves/units.js';
import { BrokerWorld, MB, OWN_ADDRESS } from '../support/broker-world.js';

t.test('each migration has one broker, unless it is to have none', async (t) => {
  const world = new BrokerWorld();
  t.teardown(() => world.host.close());
  world.begin('m1');
  world.begin('none', { choice: 'off' });
  const { terms } = await world.host.get('m1');
  t.match(terms, { danger: 3, warning: 4, important: false, quietPeriods: 5, step: 10 * MB, floor: MB });
  world.begin('m1', { choice: { danger: 7 } });
  t.same((await world.host.get('m1')).terms, terms, 'a start that is repeated changes nothing');
  await t.rejects(world.host.get('none'), { code: 'NOT_FOUND', message: /no broker of migration none/ });
  await t.rejects(world.host.setPath('none', []), { code: 'NOT_FOUND' });
  await t.rejects(world.ask('none'), { code: 'NOT_FOUND' });
  t.same(
    (await world.host.list()).map(({ migrationId }) => migrationId),
    ['m1'],
  );
});

t.test(
  'without a path it knows the interface to its target, and who else of this host uses it',
  async (t) => {
    const world = new BrokerWorld();
    t.teardown(() => world.host.close());
    world.hotSpots.towards.set('host-b', 'eth0').set('host-c', 'eth1').set('host-d', 'eth0');
    world.hotSpots.set('eth0', { capacity: bytesPerSecond(125 * MB) });
    world.begin('m1', { target: 'host-b' });
    world.begin('m2', { target: 'host-c' });
    world.begin('m3', { target: 'host-d' });
    const { path, terms } = await world.host.get('m1');
    t.same(path, [
      { link: 'eth0', capacity: 125 * MB, sharers: [{ server: OWN_ADDRESS, migrationId: 'm3' }] },
    ]);
    t.equal(terms.step, 12.5 * MB, 'a tenth of it');
    t.same((await world.host.get('m2')).path, [{ link: 'eth1', sharers: [] }]);
    world.begin('m4', { target: '127.0.0.1' });
    t.same((await world.host.get('m4')).path, []);
  },
);

t.test('a path that it is told comes first, the interface stays', async (t) => {
  const world = new BrokerWorld();
  t.teardown(() => world.host.close());
  world.hotSpots.towards.set('host-b', 'eth0');
  world.begin('m1');
  const tor = { link: 'tor3', capacity: bytesPerSecond(50 * MB), sharers: [] };
  t.same((await world.host.setPath('m1', [tor])).path, [tor, { link: 'eth0', sharers: [] }]);
  const told = { link: 'eth0', sharers: [{ server: 'h:1', migrationId: 'm9' }] };
  t.same((await world.host.setPath('m1', [told, tor])).path, [told, tor]);
  t.equal((await world.host.get('m1')).terms.step, 5 * MB, 'a tenth of the narrowest');
});

t.test('in danger it asks the others of its host, without the network', async (t) => {
  const world = new BrokerWorld({ hostLimit: bytesPerSecond(80 * MB) });
  t.teardown(() => world.host.close());
  // No interface is measured: they share the limit of the daemon.
  const urgent = world.begin('m1', { deadlineIn: 5_000_000 });
  const other = world.begin('m2');
  await world.periods(2);
  t.equal(urgent.netLimit, UNLIMITED);
  t.ok(other.netLimit <= 20 * MB, `${other.netLimit}`);
  t.same(world.peers.asked, []);
  t.match(await world.host.get('m2'), { askedBy: ['m1'] });
  // Out of danger: 1 GB at 40 MB/s.
  urgent.left = 1_000 * MB;
  await world.periods(9);
  t.equal(other.netLimit, UNLIMITED);
});

t.test('the last word of the last 256 that ended is kept', async (t) => {
  const world = new BrokerWorld();
  t.teardown(() => world.host.close());
  for (let i = 0; i < 300; i++) {
    world.begin(`m${i}`);
    await world.host.setPath(`m${i}`, [{ link: 'tor3', sharers: [{ server: 'h:1', migrationId: 'x' }] }]);
    world.host.end(`m${i}`);
  }
  await world.periods(1);
  const kept = await world.host.list();
  t.equal(kept.length, 256);
  t.ok(kept.every(({ ended }) => ended));
  t.ok(
    kept.every(({ path }) => path.length === 0),
    'without their paths',
  );
  t.match(await world.host.get('m299'), { ended: true });
  await t.rejects(world.host.get('m0'), { code: 'NOT_FOUND' });
});

t.test(
  'a decision that changes something is a line of the log with its reason, others are not',
  async (t) => {
    const world = new BrokerWorld();
    t.teardown(() => world.host.close());
    world.begin('m1');
    await world.periods(5);
    t.same(world.messages('info'), []);
    await world.ask('m1', { from: 'm8' });
    await world.periods(1);
    t.equal(world.messages('info').length, 1);
    t.match(world.lines.at(-1), {
      level: 'info',
      message: /^broker: .*20\.0 MB\/s.*m8/,
      fields: { migration: 'm1' },
    });
  },
);
