/** What a broker leaves behind when something ends or fails: a migration without limits of a broker. */
import t from 'tap';
import { MigrateFsError } from '../../src/leaves/errors.js';
import { UNLIMITED } from '../../src/leaves/units.js';
import { BrokerWorld, MB } from '../support/broker-world.js';

const limited = async (world: BrokerWorld) => {
  const migration = world.begin('m1');
  await world.ask('m1');
  await world.periods(1);
  return migration;
};

t.test('when the daemon ends, its brokers release what they set', async (t) => {
  const world = new BrokerWorld();
  const migration = await limited(world);
  t.equal(migration.netLimit, 20 * MB);
  await world.host.close();
  t.equal(migration.netLimit, UNLIMITED);
  t.equal(world.clock.pending, 0, 'no timer is left');
  t.match(await world.host.get('m1'), { ended: true, netLimit: UNLIMITED });
  world.begin('m2');
  t.equal(world.clock.pending, 0, 'and nothing begins any more');
});

t.test('a replica thread that is stuck keeps neither the broker nor the daemon from ending', async (t) => {
  const world = new BrokerWorld();
  const migration = await limited(world);
  migration.stuck = true;
  await world.ask('m1');
  await world.periods(3);
  t.equal(migration.calls.at(-1), `network ${10 * MB}`, 'it waits for the limit');
  let closed = false;
  const closing = world.host.close().then(() => {
    closed = true;
  });
  await world.clock.advance(1_000);
  t.equal(closed, false, 'the release is waited for');
  await world.clock.advance(1_000);
  await closing;
  t.equal(world.clock.pending, 0);
});

t.test('when its migration ends, at once or at the next look', async (t) => {
  for (const noticed of [true, false]) {
    const world = new BrokerWorld();
    t.teardown(() => world.host.close());
    const migration = await limited(world);
    migration.ended = true;
    migration.failure = { set: new MigrateFsError('FAILED_PRECONDITION', 'it has ended') };
    if (noticed) world.host.end('m1');
    await world.periods(noticed ? 0 : 1);
    t.match(await world.host.get('m1'), { ended: true, netLimit: UNLIMITED, askedBy: ['other'] });
    t.equal(await world.ask('m1'), 'ended');
    await t.rejects(world.host.setPath('m1', []), { code: 'FAILED_PRECONDITION' });
    const before = migration.calls.length;
    await world.periods(5);
    t.equal(migration.calls.length, before, 'it is looked at no more');
    t.same(world.messages('warn'), []);
  }
});

t.test('a policy that throws: two more tries, then the limits are released', async (t) => {
  const world = new BrokerWorld();
  const migration = await limited(world);
  world.decide = () => {
    throw new TypeError('a defect');
  };
  await world.periods(2);
  t.equal(migration.netLimit, 20 * MB);
  t.match(await world.host.get('m1'), { ended: false, reason: /try again: .*a defect/ });
  await world.periods(1);
  t.equal(migration.netLimit, UNLIMITED);
  t.match(await world.host.get('m1'), { ended: true, reason: /gives the migration up: .*a defect/ });
  t.equal(world.messages('error').length, 1);
});

t.test('a failure that passes costs decisions, nothing more', async (t) => {
  const world = new BrokerWorld();
  t.teardown(() => world.host.close());
  const migration = world.begin('m1');
  for (const failure of ['observe', 'set'] as const) {
    for (let round = 0; round < 3; round++) {
      migration.failure = { [failure]: new MigrateFsError('UNAVAILABLE', 'not now') };
      await world.ask('m1');
      await world.periods(2);
      migration.failure = {};
      await world.ask('m1');
      await world.periods(1);
      t.match(await world.host.get('m1'), { ended: false });
    }
  }
  t.ok(migration.netLimit < 20 * MB);
});

t.test('peers that are down, silent or strange delay no decision and harm nothing', async (t) => {
  const world = new BrokerWorld();
  t.teardown(() => world.host.close());
  const migration = world.begin('m1', { deadlineIn: 5_000_000 });
  const sharers = ['down', 'silent', 'gone', 'fine'].map((id) => ({ server: `${id}:7070`, migrationId: id }));
  await world.host.setPath('m1', [{ link: 'tor3', sharers }]);
  world.peers.answers.set('down', new MigrateFsError('UNAVAILABLE', 'cannot reach it'));
  world.peers.answers.set('silent', 'never');
  world.peers.answers.set('gone', 'ended');
  await world.periods(10);
  const looks = migration.calls.filter((call) => call === 'observe').length;
  t.equal(looks, 10, 'a look each period');
  const times = (id: string): number =>
    world.peers.asked.filter(({ request }) => request.migrationId === id).length;
  t.same(['down', 'silent', 'gone', 'fine'].map(times), [10, 10, 1, 10]);
  t.equal(world.messages('warn').length, 2, 'each is complained of once');
  t.equal(world.peers.open, 1, 'the last call to the silent one');
  await world.host.setPath('m1', [{ link: 'tor3', sharers }]);
  await world.periods(1);
  t.equal(times('gone'), 2, 'another path: who knows');
});

t.test('many sharers: each once, bounded in number and at the same time', async (t) => {
  const world = new BrokerWorld();
  t.teardown(() => world.host.close());
  world.begin('m1', { deadlineIn: 5_000_000 });
  const sharers = (from: number) =>
    Array.from({ length: 200 }, (_, i) => ({ server: 'h:1', migrationId: `s${from + i}` }));
  await world.host.setPath('m1', [
    { link: 'a', sharers: [{ server: 'self:1', migrationId: 'm1' }, ...sharers(0)] },
    { link: 'b', sharers: sharers(100) },
  ]);
  await world.periods(1);
  const ids = world.peers.asked.map(({ request }) => request.migrationId);
  t.equal(ids.length, 256);
  t.equal(new Set(ids).size, ids.length);
  t.notOk(ids.includes('m1'), 'not itself');
  const links = world.peers.asked.map(({ request }) => request.link);
  t.equal(links.filter((link) => link === 'a').length, 200, 'for the sake of the first link they share');
  t.equal(world.peers.most, 16);
});
