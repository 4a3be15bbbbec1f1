import t from 'tap';
import { connect } from '../../src/control/control-client.js';
import { parseHostPort } from '../../src/leaves/host-port.js';
import type { ImageDescription } from '../../src/leaves/migration.js';
import { bytes, bytesPerSecond, GiB, generation, UNLIMITED } from '../../src/leaves/units.js';
import { controlFixture } from '../support/control-fixture.js';
import { snapshotExample } from '../support/fake-migration-control.js';

const fixture = await controlFixture();
const { control } = fixture;
const client = connect({ server: parseHostPort(fixture.server.address) });
t.teardown(async () => {
  client.close();
  await fixture.server.close();
});

t.test('DescribeImages carries every field, and errors in their place', async (t) => {
  const fenced: ImageDescription = {
    name: 'a.img',
    size: bytes(10 * GiB),
    allocated: bytes(GiB),
    role: 'fenced',
    generation: generation(3),
    peer: 'host-b:7071',
  };
  const migrating: ImageDescription = {
    name: 'b.img',
    size: bytes(GiB),
    allocated: bytes(0),
    role: 'owner',
    generation: generation(0),
    migrationId: 'm7',
  };
  control.descriptions = [fenced, migrating];
  t.same(await client.describeImages(['b.img', 'c.img', 'a.img']), [
    migrating,
    { name: 'c.img', error: { code: 'NOT_FOUND', message: 'no image c.img' } },
    fenced,
  ]);
});

t.test('DescribeImages refuses names as StartMigration does, and too many', async (t) => {
  control.calls.length = 0;
  for (const names of [[], ['/etc/passwd'], ['a/../b'], Array.from({ length: 65 }, (_, i) => `i${i}`)])
    await t.rejects(client.describeImages(names), { code: 'INVALID_ARGUMENT' });
  t.same(control.calls, [], 'nothing was asked of the store');
});

t.test('whose limits they are, and the id of the request', async (t) => {
  const snapshot = {
    ...snapshotExample,
    netLimit: bytesPerSecond(1_000_000),
    operatorNetLimit: bytesPerSecond(5_000_000),
    brokerNetLimit: bytesPerSecond(1_000_000),
    diskLimit: bytesPerSecond(4096),
    brokerDiskLimit: bytesPerSecond(4096),
    requestId: 'task-1',
  };
  control.put(snapshot);
  t.same(await client.get(snapshot.id), snapshot);
  const { operatorNetLimit: _1, brokerNetLimit: _2, brokerDiskLimit: _3, requestId: _4, ...plain } = snapshot;
  control.put({ ...plain, operatorDiskLimit: bytesPerSecond(4096) });
  t.same(await client.get(snapshot.id), { ...plain, operatorDiskLimit: bytesPerSecond(4096) });
});

t.test('StartMigration hands the request id over, and refuses one that is too long', async (t) => {
  const request = {
    images: ['a.img'],
    target: 'host-b:7071',
    cutover: 'explicit',
    netLimit: UNLIMITED,
    diskLimit: UNLIMITED,
    priority: 0,
  } as const;
  control.calls.length = 0;
  await client.start({ ...request, requestId: 'x'.repeat(128) });
  t.same(control.calls, [['start', { ...request, requestId: 'x'.repeat(128) }]]);
  await t.rejects(client.start({ ...request, requestId: 'x'.repeat(129) }), { code: 'INVALID_ARGUMENT' });
});
