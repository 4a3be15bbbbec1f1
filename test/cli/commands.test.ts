import t from 'tap';
import { bytes, bytesPerSecond, millis } from '../../src/leaves/units.js';
import { controlFixture, daemonStatusExample } from '../support/control-fixture.js';
import { brokerExample, FakeBrokerControl } from '../support/fake-broker-control.js';
import { snapshotExample } from '../support/fake-migration-control.js';
import type { RunResult } from '../support/run.js';
import { CLI, run, runCli } from '../support/run.js';

const brokers = new FakeBrokerControl();
const fixture = await controlFixture(undefined, brokers);
const { control } = fixture;
t.teardown(() => fixture.server.close());
const cli = (...args: string[]): Promise<RunResult> => runCli([...args, '--server', fixture.server.address]);
t.beforeEach(() => {
  control.migrations.clear();
  control.calls.length = 0;
  control.put(snapshotExample);
});

t.test('status shows the daemon and an aligned table', async (t) => {
  control.put({
    ...snapshotExample,
    id: 'a-longer-id',
    startedAt: millis(snapshotExample.startedAt + 1),
    state: 'mirroring',
    netLimit: bytesPerSecond(5e6),
  });
  const { code, stdout, stderr } = await cli('status');
  t.equal(code, 0, stderr);
  const [who, where, addresses, blank, heading, first, second] = stdout.split('\n');
  t.match(who, /^migratefs 0\.1\.0, pid 4242 on host-a, up /);
  t.equal(where, '/srv/images mounted at /mnt/images (transport kernel)');
  t.equal(addresses, 'control 127.0.0.1:7070, data 127.0.0.1:7071');
  t.equal(blank, '');
  const column = heading!.indexOf('STATE');
  t.equal(first!.slice(column).split('  ')[0], 'bulk copy');
  t.equal(second!.slice(column).split('  ')[0], 'in sync');
  t.match(first, /m1 .*50% +512 MiB +64\.0 MiB +118 MB\/s +5\.0 s .*vm\/disk\.raw/);
});

t.test('status says so when there are no migrations', async (t) => {
  control.migrations.clear();
  t.match((await cli('status')).stdout, /\n\nno migrations\n$/);
});

t.test('status --json is one object with the daemon and its migrations; no limit is 0', async (t) => {
  const { code, stdout } = await cli('status', '--json');
  t.equal(code, 0);
  t.same(JSON.parse(stdout), {
    daemon: daemonStatusExample,
    migrations: [{ ...snapshotExample, netLimit: 0, diskLimit: 0 }],
  });
});

t.test('status ID shows one migration in detail, and as JSON', async (t) => {
  control.put({
    ...snapshotExample,
    state: 'interrupted',
    error: { code: 'UNAVAILABLE', message: 'host-b:7071 does not answer' },
  });
  const { stdout } = await cli('status', 'm1');
  t.match(stdout, /state +interrupted .*host-b:7071 does not answer/);
  t.match(
    stdout,
    /image +vm\/disk\.raw: 10\.0 GiB, 1\.0 GiB allocated, 512 MiB left, 64\.0 MiB dirty, generation 3/,
  );
  const json = JSON.parse((await cli('status', 'm1', '--json')).stdout) as object;
  t.match(json, { id: 'm1', state: 'interrupted', error: { code: 'UNAVAILABLE' } });
});

t.test('status ID shows the broker, whose limits hold, and why', async (t) => {
  brokers.brokers.set('m1', { ...brokerExample, decidedAt: millis(Date.now()) });
  t.teardown(() => brokers.brokers.clear());
  control.put({
    ...snapshotExample,
    netLimit: bytesPerSecond(41_500_000),
    operatorNetLimit: bytesPerSecond(50_000_000),
    brokerNetLimit: bytesPerSecond(41_500_000),
    diskLimit: bytesPerSecond(1_000_000),
    operatorDiskLimit: bytesPerSecond(1_000_000),
  });
  const { stdout } = await cli('status', 'm1');
  t.match(
    stdout,
    /^limits +network 41\.5 MB\/s \(broker; operator 50\.0 MB\/s\), disk 1\.0 MB\/s \(operator\)$/m,
  );
  t.match(stdout, /^broker +warning, laxity 2\.3 \(important: danger at 2\.5\)$/m);
  t.match(
    stdout,
    /^decided +reduced to 41\.5 MB\/s: tor3 hot, laxity 2\.3 \(.* ago, decision 17, every 4\.0 s\)$/m,
  );
  t.match(stdout, /^path +host-a \(capacity unknown\), tor3 \(1\.3 GB\/s, shared with 2\)$/m);
  const json = JSON.parse((await cli('status', 'm1', '--json')).stdout) as object;
  t.match(json, { id: 'm1', broker: { zone: 'warning', netLimit: 41_500_000, diskLimit: 0, ended: false } });
  brokers.brokers.set('m1', { ...brokerExample, ended: true });
  t.match((await cli('status', 'm1')).stdout, /^broker +ended after 17 decisions, the last: reduced to/m);
});

t.test('an unknown migration is exit code 1 and one line', async (t) => {
  for (const args of [
    ['status', 'm9'],
    ['status', 'm9', '--watch'],
    ['pause', 'm9'],
    ['limit', 'm9', '--net', '1MB'],
  ])
    t.same(await cli(...args), { code: 1, signal: null, stdout: '', stderr: 'migratefs: no migration m9\n' });
});

t.test('a daemon that is not there is exit code 1 and one line', async (t) => {
  const { code, stdout, stderr } = await runCli(['status'], {
    env: { ...process.env, MIGRATEFS_SERVER: '127.0.0.1:1' },
  });
  t.equal(code, 1);
  t.equal(stdout, '');
  t.equal(stderr, 'migratefs: cannot reach the daemon at 127.0.0.1:1: is `migratefs mount` running there?\n');
});

t.test('limit sets what is given and prints both limits', async (t) => {
  const { stdout } = await cli('limit', 'm1', '--net', '50MB/s', '--disk', '1MiB');
  t.equal(stdout, 'm1: network 50.0 MB/s, disk 1.0 MB/s\n');
  t.same(control.calls, [
    ['setLimits', 'm1', { netLimit: 50_000_000 }, 'operator'],
    ['setLimits', 'm1', { diskLimit: 1_049_000 }, 'operator'],
  ]);
  t.equal((await cli('limit', 'm1', '--net', '0')).stdout, 'm1: network unlimited, disk 1.0 MB/s\n');
});

t.test('pause, resume, cutover and cancel print the new state', async (t) => {
  t.equal((await cli('pause', 'm1')).stdout, 'm1: paused\n');
  t.equal((await cli('resume', 'm1')).stdout, 'm1: bulk copy\n');
  t.same(await cli('cutover', 'm1'), {
    code: 1,
    signal: null,
    stdout: '',
    stderr: 'migratefs: migration m1 is bulk-copy, not in sync\n',
  });
  control.change('m1', { state: 'mirroring' });
  t.equal((await cli('cutover', 'm1')).stdout, 'm1: completed, stall 13 ms\n');
  control.put({ ...snapshotExample, id: 'm2' });
  t.match(JSON.parse((await cli('cancel', 'm2', '--json')).stdout), { id: 'm2', state: 'cancelled' });
});

t.test('verify prints what was compared; a difference is exit code 1', async (t) => {
  control.reports = [{ image: 'vm/disk.raw', bytesCompared: bytes(2 ** 30), mismatches: [] }];
  t.equal((await cli('verify', 'm1')).stdout, 'vm/disk.raw: identical, 1.0 GiB compared\n');
  t.equal((await cli('verify', '/mnt/images/vm/disk.raw')).code, 0);
  t.same(control.calls, [
    ['verify', 'm1'],
    ['verify', 'vm/disk.raw'],
  ]);
  const mismatches = [{ offset: bytes(65_536), length: bytes(4096) }];
  control.reports = [{ image: 'vm/disk.raw', bytesCompared: bytes(2 ** 30), mismatches }];
  const { code, stdout, stderr } = await cli('verify', 'm1');
  t.equal(code, 1);
  t.match(stdout, /DIFFERS in 1 ranges of 1\.0 GiB compared, the first at offset 65536, 4096 bytes/);
  t.match(stderr, /^migratefs: source and target differ in vm\/disk\.raw: do not cut over/);
});

t.test('a reader that closes the pipe early is no failure', async (t) => {
  for (let i = 0; i < 200; i++) control.put({ ...snapshotExample, id: `x${i}${'y'.repeat(1000)}` });
  const command = `"${process.execPath}" "${CLI}" status --json --server ${fixture.server.address} | head -c 1; echo "/\${PIPESTATUS[0]}"`;
  const { stdout, stderr } = await run('bash', ['-c', command]);
  t.equal(stdout, '{/0\n');
  t.equal(stderr, '');
});

t.test('what a command finds out does not depend on whether its reader stays', async (t) => {
  const mismatches = [{ offset: bytes(65_536), length: bytes(4096) }];
  control.reports = [{ image: 'vm/disk.raw', bytesCompared: bytes(2 ** 30), mismatches }];
  const verify = `"${process.execPath}" "${CLI}" verify m1 --server ${fixture.server.address}`;
  const piped = await run('bash', ['-c', `${verify} | true; echo "\${PIPESTATUS[0]}"`]);
  t.equal(piped.stdout, '1\n');
  const full = await run('bash', ['-c', `${verify} >/dev/full`]);
  t.equal(full.code, 1);
  t.match(full.stderr, /^migratefs: source and target differ[^\n]*\n$/m);
  t.notMatch(full.stderr, /\n +at /, 'no stack');
  const status = `"${process.execPath}" "${CLI}" status --server ${fixture.server.address} >/dev/full`;
  const shown = await run('bash', ['-c', status]);
  t.equal(shown.code, 1);
  t.match(shown.stderr, /^migratefs: cannot write to standard output: ENOSPC[^\n]*\n$/);
});

t.test('status of an ended migration says how it ended', async (t) => {
  control.put({
    ...snapshotExample,
    state: 'completed',
    endedAt: millis(snapshotExample.startedAt + 80_000),
    cutoverStall: millis(12.5),
  });
  t.match(
    (await cli('status', 'm1')).stdout,
    /state +completed in 1m20s: 600 MiB sent \(88\.0 MiB resent, 1\.0 MiB mirrored\), cutover stall 13 ms/,
  );
});
