import t from 'tap';
import { connect } from '../../src/control/control-client.js';
import { parseHostPort } from '../../src/leaves/host-port.js';
import { bytes, bytesPerSecond, millis, UNLIMITED } from '../../src/leaves/units.js';
import { controlFixture, daemonStatusExample } from '../support/control-fixture.js';
import { snapshotExample } from '../support/fake-migration-control.js';

const fixture = await controlFixture();
const { control } = fixture;
const client = connect({ server: parseHostPort(fixture.server.address) });
t.teardown(async () => {
  client.close();
  await fixture.server.close();
});
t.beforeEach(() => {
  control.migrations.clear();
  control.calls.length = 0;
  control.put(snapshotExample);
});

t.test('StartMigration hands over all it was asked for', async (t) => {
  const request = {
    images: ['vm/disk.raw', 'vm/data disk.qcow2'],
    target: '[::1]:7071',
    cutover: 'when-in-sync',
    netLimit: bytesPerSecond(50_000_000),
    diskLimit: UNLIMITED,
    deadline: millis(4_000_000_000_000),
    priority: 9,
  } as const;
  const snapshot = await client.start(request);
  t.same(control.calls, [['start', request]]);
  t.match(snapshot, { id: 'm2', state: 'preparing', peer: '[::1]:7071', netLimit: 50_000_000, priority: 9 });
  t.equal(snapshot.diskLimit, UNLIMITED);
  t.same(
    snapshot.images.map((image) => image.name),
    request.images,
  );
});

t.test('a relative deadline counts from now by the clock of the daemon', async (t) => {
  const before = Date.now();
  const snapshot = await client.start({
    images: ['a'],
    target: 'b:1',
    cutover: 'explicit',
    netLimit: UNLIMITED,
    diskLimit: UNLIMITED,
    deadlineAfter: millis(600_000),
    priority: 0,
  });
  t.ok(snapshot.deadline! >= before + 600_000 && snapshot.deadline! <= Date.now() + 600_001);
});

t.test('GetMigration and ListMigrations carry every field of a snapshot', async (t) => {
  const full = {
    ...snapshotExample,
    id: 'm7',
    role: 'target',
    state: 'failed',
    endedAt: millis(1_800_000_100_000),
    error: { code: 'RESOURCE_EXHAUSTED', message: 'the disk is full' },
    cutoverStall: millis(12.25),
    netLimit: bytesPerSecond(1500),
  } as const;
  control.put(full);
  t.same(await client.get('m7'), full);
  t.same(await client.list(), [snapshotExample, full]);
});

t.test('SetNetworkLimit and SetDiskLimit change one limit each; unlimited is 0 on the wire', async (t) => {
  t.equal((await client.setNetworkLimit('m1', bytesPerSecond(2_000_000))).netLimit, 2_000_000);
  t.equal((await client.setDiskLimit('m1', bytesPerSecond(1))).diskLimit, 1000, 'never rounded to no limit');
  t.equal((await client.setNetworkLimit('m1', UNLIMITED)).netLimit, UNLIMITED);
  t.same(
    control.calls.map((call) => (call as unknown[])[2]),
    [{ netLimit: 2_000_000 }, { diskLimit: 1000 }, { netLimit: UNLIMITED }],
  );
});

t.test('QueryProgress gives the rate asked for in KB/s, or both', async (t) => {
  t.same(await client.queryProgress('m1', 'network'), { networkKbPerS: 118_250 });
  t.same(await client.queryProgress('m1', 'disk'), { diskKbPerS: 30_000 });
  t.same(await client.queryProgress('m1'), { networkKbPerS: 118_250, diskKbPerS: 30_000 });
});

t.test('QueryCompletion is true for a completed migration only', async (t) => {
  t.equal(await client.queryCompletion('m1'), false);
  control.change('m1', { state: 'failed' });
  t.equal(await client.queryCompletion('m1'), false);
  control.change('m1', { state: 'completed' });
  t.equal(await client.queryCompletion('m1'), true);
});

t.test('Pause, Resume, Cutover and Cancel reach the migration they name', async (t) => {
  t.equal((await client.pause('m1')).state, 'paused');
  t.equal((await client.resume('m1')).state, 'bulk-copy');
  control.change('m1', { state: 'mirroring' });
  t.match(await client.cutover('m1'), { state: 'completed', cutoverStall: 12.5 });
  control.put({ ...snapshotExample, id: 'm2' });
  t.equal((await client.cancel('m2')).state, 'cancelled');
  t.equal((await client.cancel('m2', true)).state, 'cancelled');
  t.same(control.calls, [
    ['pause', 'm1'],
    ['resume', 'm1'],
    ['cutover', 'm1'],
    ['cancel', 'm2'],
    ['cancel', 'm2', 'take back'],
  ]);
});

t.test('Verify reports what differs, and how much of it the answer left out', async (t) => {
  const mismatches = Array.from({ length: 1500 }, (_, index) => ({
    offset: bytes(2 ** 40 + index * 65_536),
    length: bytes(4096),
  }));
  control.reports = [
    { image: 'a', bytesCompared: bytes(2 ** 45), mismatches: [] },
    { image: 'b', bytesCompared: bytes(1), mismatches },
  ];
  const [a, b] = await client.verify('vm/disk.raw');
  t.same(control.calls, [['verify', 'vm/disk.raw']]);
  t.same(a, { image: 'a', bytesCompared: 2 ** 45, mismatches: [], mismatchCount: 0 });
  t.equal(b!.mismatchCount, 1500);
  t.same(b!.mismatches, mismatches.slice(0, 1000));
});

t.test('GetStatus says who the daemon is', async (t) => {
  t.same(await client.status(), daemonStatusExample);
});
