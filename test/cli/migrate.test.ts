import { spawn } from 'node:child_process';
import { once } from 'node:events';
import t from 'tap';
import type { MigrationSnapshot } from '../../src/leaves/migration.js';
import { millis } from '../../src/leaves/units.js';
import { controlFixture } from '../support/control-fixture.js';
import { CLI, runCli } from '../support/run.js';
import { guardProcess, releaseProcess } from '../support/scratch.js';

const fixture = await controlFixture();
const { control } = fixture;
t.teardown(() => fixture.server.close());
const defaults = { onStart: control.onStart, onCancel: control.onCancel };
t.beforeEach(() => {
  control.migrations.clear();
  control.calls.length = 0;
  Object.assign(control, defaults);
});

const callNames = (): unknown[] => control.calls.map((call) => (call as unknown[])[0]);
const server = ['--server', fixture.server.address];
const to = ['--to', '127.0.0.1:7171'];

/** Lets a started migration run through `states`, one each time a watcher has seen the one before. */
const play = (...changes: Partial<MigrationSnapshot>[]): void => {
  control.onStart = ({ id }) => {
    const next = (): void => {
      if (changes.length === 0) return;
      if (control.watchers === 0) return void setTimeout(next, 10);
      control.change(id, changes.shift()!);
      setTimeout(next, 40);
    };
    next();
  };
};

const COMPLETED = {
  state: 'completed',
  cutoverStall: millis(8),
  endedAt: millis(1_800_000_060_000),
} as const;

t.test('piped: a line for each phase, what to do when in sync, exit code 0 when completed', async (t) => {
  play(
    { state: 'bulk-copy' },
    { state: 'dirty-resend' },
    { state: 'mirroring' },
    { state: 'cutover' },
    COMPLETED,
  );
  const { code, stdout, stderr } = await runCli(['migrate', 'vm/disk.raw', ...to, ...server]);
  t.equal(code, 0);
  t.equal(stderr, '');
  const lines = stdout.trim().split('\n');
  const texts = lines.map((line) => line.replace(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z /, ''));
  t.match(texts, [
    /^preparing 0%/,
    /^bulk copy 50% of 1\.0 GiB, 118 MB\/s, dirty 64\.0 MiB/,
    /^dirty resend/,
    /^in sync 100%/,
    'in sync: resume the VM on the target, or `migratefs cutover m1`',
    /^cutover/,
    /^completed in 1m: .* cutover stall 8 ms$/,
  ]);
});

t.test('options and images reach the daemon; a path below the mount point becomes a name', async (t) => {
  play(COMPLETED);
  const limits = ['--net-limit', '50MB/s', '--disk-limit', 'unlimited', '--priority', '7'];
  const rest = ['--deadline', '2100-01-01T00:00:00Z', '--cutover', 'when-in-sync'];
  const { code } = await runCli(
    [
      'migrate',
      '/mnt/images/vm/disk.raw',
      '/srv/images/b.raw',
      'c d.raw',
      ...to,
      ...limits,
      ...rest,
      ...server,
    ],
    {},
  );
  t.equal(code, 0);
  const [, request] = control.calls[0] as [string, object];
  t.same(request, {
    images: ['vm/disk.raw', 'b.raw', 'c d.raw'],
    target: '127.0.0.1:7171',
    cutover: 'when-in-sync',
    netLimit: 50_000_000,
    diskLimit: Number.POSITIVE_INFINITY,
    deadline: Date.UTC(2100, 0, 1),
    priority: 7,
  });
  const elsewhere = await runCli(['migrate', '/etc/shadow', ...to, ...server]);
  t.equal(elsewhere.code, 1);
  t.match(elsewhere.stderr, /^migratefs: \/etc\/shadow is not below \/mnt\/images/);
});

t.test('terms of the broker reach the daemon, and so does --no-broker', async (t) => {
  const startedWith = async (...flags: string[]): Promise<unknown> => {
    control.calls.length = 0;
    play(COMPLETED);
    t.equal((await runCli(['migrate', 'a', ...to, ...server, ...flags])).code, 0);
    const [, request] = control.calls[0] as [string, { broker?: unknown }];
    return request.broker;
  };
  const floors = ['--net-floor', '2MB/s', '--disk-floor', '500KB/s'];
  t.same(await startedWith('--danger', '200%', '--warning', '250.5%', '--important', ...floors), {
    danger: 2,
    warning: 2.505,
    important: true,
    floor: 2_000_000,
    diskFloor: 500_000,
  });
  t.equal(await startedWith('--no-broker'), 'off');
});

t.test('--json prints each report as a line and nothing else on stdout', async (t) => {
  play({ state: 'bulk-copy' }, { state: 'mirroring' }, COMPLETED);
  const { code, stdout, stderr } = await runCli(['migrate', 'a', ...to, ...server, '--json']);
  t.equal(code, 0);
  const states = stdout
    .trim()
    .split('\n')
    .map((line) => (JSON.parse(line) as MigrationSnapshot).state);
  t.same(states, ['preparing', 'bulk-copy', 'mirroring', 'completed']);
  t.match(stderr, /in sync/);
});

t.test('--detach prints the id and leaves', async (t) => {
  t.same(await runCli(['migrate', 'a', ...to, ...server, '--detach']), {
    code: 0,
    signal: null,
    stdout: 'm1\n',
    stderr: '',
  });
  const { stdout } = await runCli(['migrate', 'b', ...to, ...server, '--detach', '--json']);
  t.match(JSON.parse(stdout), { id: 'm2', state: 'preparing', netLimit: 0 });
  t.notOk(callNames().includes('cancel'));
});

t.test('--until in-sync returns once mirroring and leaves the migration running', async (t) => {
  play({ state: 'bulk-copy' }, { state: 'mirroring' });
  const { code } = await runCli(['migrate', 'a', ...to, ...server, '--until', 'in-sync']);
  t.equal(code, 0);
  t.equal(control.migrations.get('m1')?.state, 'mirroring');
});

t.test('explicit cutover says what to run when in sync', async (t) => {
  play({ state: 'mirroring' }, COMPLETED);
  const { stdout } = await runCli(['migrate', 'a', ...to, ...server, '--cutover', 'explicit']);
  t.match(stdout, /in sync: hand over with `migratefs cutover m1`, then resume/);
});

t.test('a migration that fails is exit code 1 with the reason', async (t) => {
  for (const until of ['completed', 'in-sync']) {
    const error = { code: 'RESOURCE_EXHAUSTED', message: 'the disk of the target is full' } as const;
    play({ state: 'bulk-copy' }, { state: 'failed', error });
    const { code, stderr } = await runCli(['migrate', 'a', ...to, ...server, '--until', until]);
    t.equal(code, 1);
    t.match(stderr, /^migratefs: migration m\d is failed: the disk of the target is full\n$/);
  }
});

t.test('cancelled by somebody else is exit code 1', async (t) => {
  play({ state: 'cancelled' });
  const { code, stderr } = await runCli(['migrate', 'a', ...to, ...server]);
  t.equal(code, 1);
  t.equal(stderr, 'migratefs: migration m1 was cancelled\n');
});

/** A running `migrate` whose migration is in bulk copy, followed until `text` is on its stdout. */
const running = async (...args: string[]) => {
  play({ state: 'bulk-copy' });
  const child = spawn(process.execPath, [CLI, 'migrate', 'a', ...to, ...server, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  guardProcess(child.pid!);
  const output = { stdout: '', stderr: '' };
  child.stdout.on('data', (data: Buffer) => {
    output.stdout += data;
  });
  child.stderr.on('data', (data: Buffer) => {
    output.stderr += data;
  });
  let ended = false;
  const closed = once(child, 'close').then(([code]) => {
    releaseProcess(child.pid!);
    ended = true;
    return code as number | null;
  });
  const saw = async (text: RegExp): Promise<void> => {
    while (!text.test(output.stdout)) {
      if (ended) throw new Error(`ended without ${text}: ${output.stdout}${output.stderr}`);
      await Promise.race([once(child.stdout, 'data'), closed]);
    }
  };
  await saw(/bulk copy/);
  return { child, output, closed, saw };
};

t.test('Ctrl-C cancels, waits until it is cancelled, and exits with 1', async (t) => {
  const { child, output, closed, saw } = await running();
  const asked = new Promise<void>((resolve) => {
    control.onCancel = () => resolve();
  });
  child.kill('SIGINT');
  await asked;
  await saw(/cancelling m1; Ctrl-C again leaves without waiting/);
  control.change('m1', { bytesLeft: control.migrations.get('m1')!.bytesTotal, state: 'interrupted' });
  await saw(/interrupted/);
  t.equal(child.exitCode, null, 'waits for the end');
  control.change('m1', { state: 'cancelled', endedAt: millis(1_800_000_001_000) });
  t.equal(await closed, 1);
  t.match(output.stdout, /cancelled after 1\.0 s\n$/);
  t.equal(output.stderr, 'migratefs: migration m1 was cancelled\n');
});

t.test('a second Ctrl-C leaves at once', async (t) => {
  const { child, output, closed, saw } = await running();
  control.onCancel = () => {};
  child.kill('SIGINT');
  await saw(/cancelling m1/);
  child.kill('SIGINT');
  t.equal(await closed, 1);
  t.equal(output.stderr, 'migratefs: left; see `migratefs status m1`\n');
  t.same(callNames(), ['start', 'get', 'cancel']);
});

t.test('a cancel that comes too late shows how it ends instead', async (t) => {
  const { child, output, closed, saw } = await running();
  control.onCancel = () => {
    throw new Error('unused');
  };
  control.change('m1', { state: 'cutover' });
  await saw(/cutover/);
  const { MigrateFsError } = await import('../../src/leaves/errors.js');
  control.failure = new MigrateFsError('FAILED_PRECONDITION', 'migration m1 is in cutover');
  child.kill('SIGINT');
  await saw(/cannot cancel m1: migration m1 is in cutover/);
  control.change('m1', COMPLETED);
  t.equal(await closed, 0);
  t.equal(output.stderr, '');
});

t.test('a daemon that ends meanwhile is exit code 1 and says how to look again', async (t) => {
  const own = await controlFixture();
  own.control.onStart = () => {
    const stop = (): void => void (own.control.watchers > 0 ? own.server.close() : setTimeout(stop, 10));
    stop();
  };
  const { code, stderr } = await runCli(['migrate', 'a', ...to, '--server', own.server.address]);
  t.equal(code, 1);
  t.match(stderr, /^migratefs: lost the daemon at .*: look again with `migratefs status m1 --watch`\n$/);
});

t.test('status --watch ID follows to the end, as lines and as JSON', async (t) => {
  const { id } = await control.start({
    images: ['a'],
    target: 'b:1',
    cutover: 'explicit',
    netLimit: Number.POSITIVE_INFINITY as never,
    diskLimit: Number.POSITIVE_INFINITY as never,
    priority: 0,
  });
  play({ state: 'bulk-copy' }, { state: 'failed', error: { code: 'ABORTED', message: 'x' } });
  control.onStart(control.migrations.get(id)!);
  const { code, stdout } = await runCli(['status', id, '--watch', '--json', ...server]);
  t.equal(code, 0, 'watching succeeded, whatever was seen');
  t.same(
    stdout
      .trim()
      .split('\n')
      .map((line) => (JSON.parse(line) as MigrationSnapshot).state),
    ['preparing', 'bulk-copy', 'failed'],
  );
});
