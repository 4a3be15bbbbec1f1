import t from 'tap';
import { connect } from '../../src/control/control-client.js';
import { parseHostPort } from '../../src/leaves/host-port.js';
import type { MigrationSnapshot } from '../../src/leaves/migration.js';
import { bytes } from '../../src/leaves/units.js';
import type { ControlFixture } from '../support/control-fixture.js';
import { controlFixture } from '../support/control-fixture.js';
import { snapshotExample } from '../support/fake-migration-control.js';

const setUp = async (t: Tap): Promise<{ fixture: ControlFixture; client: ReturnType<typeof connect> }> => {
  const fixture = await controlFixture();
  const client = connect({ server: parseHostPort(fixture.server.address) });
  t.teardown(async () => {
    client.close();
    await fixture.server.close();
  });
  fixture.control.put(snapshotExample);
  return { fixture, client };
};

/** Resolves once `holds`; polled, because a stream that was dropped by its client gives the server no test hook. */
const until = async (holds: () => boolean): Promise<void> => {
  while (!holds()) await new Promise((resolve) => setImmediate(resolve));
};

type Tap = typeof t;

t.test(
  'the current snapshot comes first, then changes, and the stream ends with the final one',
  async (t) => {
    const { fixture, client } = await setUp(t as Tap);
    const stream = client.watch('m1');
    t.same((await stream.next()).value, snapshotExample);
    fixture.control.put({ ...snapshotExample, id: 'm2' });
    fixture.control.change('m1', { state: 'mirroring' });
    t.match((await stream.next()).value, { id: 'm1', state: 'mirroring' }, 'others are left out');
    fixture.control.change('m1', { state: 'cutover' });
    t.match((await stream.next()).value, { state: 'cutover' });
    fixture.control.change('m1', { state: 'completed' });
    t.match((await stream.next()).value, { state: 'completed' });
    t.equal((await stream.next()).done, true);
    await until(() => fixture.control.watchers === 0);
  },
);

t.test('watching a finished migration sends it and ends', async (t) => {
  const { fixture, client } = await setUp(t as Tap);
  fixture.control.change('m1', { state: 'cancelled' });
  const seen: string[] = [];
  for await (const snapshot of client.watch('m1')) seen.push(snapshot.state);
  t.same(seen, ['cancelled']);
});

t.test('an unknown migration is NOT_FOUND', async (t) => {
  const { client } = await setUp(t as Tap);
  await t.rejects(client.watch('m9').next(), { code: 'NOT_FOUND', message: 'no migration m9' });
});

t.test('without an id all migrations are watched, later ones too, past final states', async (t) => {
  const { fixture, client } = await setUp(t as Tap);
  const abort = new AbortController();
  const stream = client.watch('', abort.signal);
  t.match((await stream.next()).value, { id: 'm1', state: 'bulk-copy' });
  fixture.control.change('m1', { state: 'completed' });
  t.match((await stream.next()).value, { id: 'm1', state: 'completed' });
  fixture.control.put({ ...snapshotExample, id: 'm2', state: 'preparing' });
  t.match((await stream.next()).value, { id: 'm2', state: 'preparing' });
  const end = stream.next();
  abort.abort();
  t.equal((await end).done, true, 'aborting ends it quietly');
  await until(() => fixture.control.watchers === 0);
});

t.test('a slow reader misses intermediate snapshots, never the last one', async (t) => {
  const { fixture, client } = await setUp(t as Tap);
  const images = Array.from({ length: 64 }, (_, i) => ({
    ...snapshotExample.images[0]!,
    name: `${i}${'x'.repeat(1000)}`,
  }));
  fixture.control.change('m1', { images });
  const stream = client.watch('m1');
  await stream.next();
  const CHANGES = 5000;
  for (let i = 1; i <= CHANGES; i++) {
    fixture.control.change('m1', { bytesSent: bytes(i) });
    if (i % 50 === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  fixture.control.change('m1', { state: 'completed' });
  const seen: MigrationSnapshot[] = [];
  for await (const snapshot of stream) seen.push(snapshot);
  t.match(seen.at(-1), { state: 'completed', bytesSent: CHANGES });
  t.ok(seen.length < CHANGES / 2, `kept ${seen.length} of ${CHANGES}`);
});

t.test('a stream too many is refused, and a closed one makes room', async (t) => {
  const { fixture, client } = await setUp(t as Tap);
  const streams = Array.from({ length: 64 }, () => client.watch(''));
  await Promise.all(streams.map((stream) => stream.next()));
  await t.rejects(client.watch('').next(), { code: 'RESOURCE_EXHAUSTED', message: /64 watch streams/ });
  await streams[0]!.return();
  await until(() => fixture.control.watchers === 63);
  t.match((await client.watch('').next()).value, { id: 'm1' });
});

t.test('closing the server ends streams with a reason, and the port is free again', async (t) => {
  const { fixture, client } = await setUp(t as Tap);
  const stream = client.watch('');
  await stream.next();
  const end = t.rejects(stream.next(), { code: 'UNAVAILABLE', message: 'the daemon is shutting down' });
  await fixture.server.close();
  await end;
  t.equal(fixture.control.watchers, 0);
  await t.rejects(client.status(), { code: 'UNAVAILABLE', message: /cannot reach the daemon/ });
});
