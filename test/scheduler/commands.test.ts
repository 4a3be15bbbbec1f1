import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { checkPrograms } from '../../src/broker/scheduler/program-check.js';
import { schedulerConfigOf } from '../../src/broker/scheduler/scheduler-config.js';
import { serveScheduler } from '../../src/control/scheduler-server.js';
import type { SchedulerStatus, TaskSnapshot } from '../../src/leaves/scheduler.js';
import { millis } from '../../src/leaves/units.js';
import type { RunResult } from '../support/run.js';
import { runCli } from '../support/run.js';
import { BEGIN, SchedulerWorld } from '../support/scheduler-world.js';
import { scratchDir } from '../support/scratch.js';
import { waitFor } from '../support/wait-for.js';

const world = await SchedulerWorld.open(t);
const status = (): SchedulerStatus => ({
  version: '0.1.0',
  pid: 4242,
  address: server.address,
  store: '/var/lib/queue',
  startedAt: millis(BEGIN),
  waiting: world.scheduler.waiting,
  running: world.scheduler.running,
  ended: 0,
  hot: world.scheduler.hot(),
});
const server = await serveScheduler({
  scheduler: world.scheduler,
  status,
  listen: { host: '127.0.0.1', port: 0 },
  log: () => {},
  clock: world.clock,
});
t.teardown(() => server.close());
const cli = (...args: string[]): Promise<RunResult> => runCli([...args, '--server', server.address]);
const route = ['--from', 'a', '--to', 'b'];

t.test('a task is submitted, shown with why it is where it is, and cancelled', async (t) => {
  const submitted = await cli(
    'submit',
    'vm1',
    'vm1.raw',
    ...route,
    '--deadline',
    '10m',
    '--not-before',
    '5m',
  );
  t.same(submitted, { code: 0, signal: null, stdout: 't1\n', stderr: '' });
  await world.until(() => /window opens/.test(world.scheduler.get('t1').reason), 'it waits');
  const [heading, row] = (await cli('tasks')).stdout.split('\n');
  t.match(heading, /^ID +VM +FROM +TO +STATE +DONE +DEADLINE +LAXITY +PRIO +WHY$/);
  t.match(row, /^t1 +vm1 +a +b +waiting +- .*its window opens 12:05/);
  const { stdout } = await cli('tasks', 't1');
  t.match(stdout, /^admission +10\.0 MB at 100 MB\/s = 100 ms/m);
  t.match(stdout, /2030-01-01T12:00:0\d\.\d{3}Z +waiting +admitted: 10\.0 MB/);
  t.match(stdout, /its window opens 12:05/);
  const json = JSON.parse((await cli('tasks', '--state', 'waiting', '--json')).stdout) as {
    scheduler: SchedulerStatus;
    tasks: TaskSnapshot[];
  };
  t.match(json, {
    scheduler: { pid: 4242, waiting: 1 },
    tasks: [{ id: 't1', deadline: BEGIN + 600_000, notBefore: BEGIN + 300_000, state: 'waiting' }],
  });
  t.equal((await cli('task-cancel', 't1')).stdout, 't1: cancelled, cancelled before it began\n');
});

t.test('a name that is refused for its letters says which are accepted', async (t) => {
  const { code, stderr } = await cli('submit', 'vm-\u00fc', 'vm1.raw', ...route);
  t.equal(code, 1);
  t.match(stderr, /VM "vm-\u00fc": give 1 to 128 printable ASCII characters without blanks/);
});

t.test('--wait follows a task to its end; one that is not done is exit code 1 and one line', async (t) => {
  world.hosts.fail('a', 'start', 'ALREADY_EXISTS');
  const waiting = cli('submit', 'vm2', 'vm2.raw', ...route, '--wait');
  // The command is a process of its own, in real time; only then does time pass here.
  await waitFor(() => world.scheduler.list({ states: [], limit: 10 }).tasks.length === 2, 't2 is submitted');
  await world.untilState('t2', 'failed');
  const { code, stdout, stderr } = await waiting;
  t.equal(code, 1);
  t.match(stdout, /^t2\n/);
  t.equal(stderr, 'migratefs: task t2 is failed: a: start fails as told\n');
});

t.test('refusals and a scheduler that is not there are exit code 1 and one line', async (t) => {
  const infeasible = await cli('submit', 'vm3', 'vm3.raw', ...route, '--deadline', '1050ms');
  t.equal(infeasible.code, 1);
  t.match(
    infeasible.stderr,
    /^migratefs: the deadline cannot be met: 10\.0 MB at 100 MB\/s .* too late.*insist\n$/,
  );
  t.match(await cli('tasks', 't77'), { code: 1, stderr: 'migratefs: no task t77: see `migratefs tasks`\n' });
  t.match(await runCli(['tasks', '--server', '127.0.0.1:1']), {
    code: 1,
    stderr: 'migratefs: cannot reach the scheduler at 127.0.0.1:1: is `migratefs scheduler` running there?\n',
  });
});

t.test('a configuration that cannot be right is refused by the place of its fault', async (t) => {
  const right = { store: 'queue', topology: 'topology.json' };
  t.match(schedulerConfigOf(right), {
    listen: { host: '127.0.0.1', port: 7080 },
    plan: { perHost: 2, perLink: 4, share: 0.8 },
    attemptsMax: 3,
    defaultDriver: 'none',
    insecure: false,
  });
  const wrong: [object, RegExp][] = [
    [{ topology: 'x' }, /scheduler\.store/],
    [{ store: 'x' }, /scheduler\.topology: give the path/],
    [{ ...right, stores: 1 }, /unknown key 'stores'/],
    [{ ...right, limits: { 'per-host': 1.5 } }, /limits\.per-host: give a whole number/],
    [{ ...right, limits: { share: 1.2 } }, /limits\.share/],
    [{ ...right, drivers: { none: { command: ['/x'] } } }, /'none' cannot be the name/],
    [{ ...right, drivers: { x: { command: ['relative'] } } }, /drivers\.x\.command: .*absolute path/],
    [{ ...right, drivers: { x: { command: ['/x'], retry: 1 } } }, /unknown key 'retry'/],
    [{ ...right, 'default-driver': 'x' }, /there is no driver 'x'/],
    [{ ...right, listen: 'here' }, /HOST:PORT/],
  ];
  for (const [config, message] of wrong)
    t.throws(() => schedulerConfigOf(config), { code: 'INVALID_ARGUMENT', message }, JSON.stringify(config));
  const folder = scratchDir(t, 'config');
  const file = join(folder, 'scheduler.json');
  writeFileSync(file, JSON.stringify(right));
  const { code, stderr } = await runCli(['scheduler', '--config', file]);
  t.equal(code, 1);
  t.match(stderr, /^migratefs: cannot read the topology .*topology\.json: ENOENT.*\n$/);
  t.match(readFileSync(file, 'utf8'), /queue/, 'left as it was');
});

t.test('a driver whose program cannot be run is refused at the start, with a remedy', async (t) => {
  const folder = scratchDir(t, 'drivers');
  mkdirSync(folder, { recursive: true });
  const [missing, plain, good] = [join(folder, 'missing'), join(folder, 'plain'), join(folder, 'good')];
  writeFileSync(plain, '#!/bin/sh\n', { mode: 0o644 });
  writeFileSync(good, '#!/bin/sh\n', { mode: 0o755 });
  const uri = 'qemu+ssh://{target}/system';
  const qemu = {
    type: 'qemu',
    source: 'tcp:{source}:1',
    target: 'tcp:{target}:1',
    migrate: 'tcp:{target}:2',
  };
  const right = { store: 'queue', topology: 'topology.json' };
  const check = (driver: object): void =>
    checkPrograms(schedulerConfigOf({ ...right, drivers: { x: driver } }).drivers);
  const wrong: [object, string][] = [
    [{ command: [missing, 'x'] }, `command: ${missing} cannot be found (ENOENT): install it`],
    [{ command: [plain] }, `command: ${plain} cannot be run: chmod +x ${plain}`],
    [{ command: [folder] }, `command: ${folder} is not a file`],
    [{ command: [good], rollback: [missing] }, `rollback: ${missing} cannot be found`],
    [{ ...qemu, start: [missing] }, `start: ${missing} cannot be found`],
    [{ type: 'libvirt', source: uri, target: uri, virsh: missing }, `virsh: ${missing} cannot be found`],
  ];
  for (const [driver, message] of wrong)
    t.throws(() => check(driver), { code: 'INVALID_ARGUMENT', message: `drivers.x.${message}` }, message);
  for (const driver of [{ command: [good], rollback: [good] }, qemu, { ...qemu, start: [good] }])
    t.doesNotThrow(() => check(driver), JSON.stringify(driver));
  const file = join(folder, 'scheduler.json');
  writeFileSync(file, JSON.stringify({ ...right, drivers: { x: { command: [missing] } } }));
  const { code, stderr } = await runCli(['scheduler', '--config', file]);
  t.equal(code, 1);
  t.match(stderr, `migratefs: scheduler.drivers.x.command: ${missing} cannot be found`);
});

t.test('what is wrong with the ports of a scheduler is said by the keys of its configuration', async (t) => {
  const folder = scratchDir(t, 'ports');
  mkdirSync(folder, { recursive: true });
  const file = join(folder, 'scheduler.json');
  const topology = { hosts: [], switches: [], links: [] };
  const open = { listen: '0.0.0.0:0' };
  for (const [config, message] of [
    [{ listen: server.address }, /in use; give another one with 'listen' in the configuration/],
    [open, /could move virtual machines: give 'ca', 'cert' and 'key' of 'tls' .* risk with 'insecure'/],
    [{ 'hot-spots': { alerts: open } }, /serve the alert port .*: give 'ca', 'cert' and 'key' of 'tls'/],
    [{ tls: { ca: 'ca.pem' } }, /needs all of 'ca', 'cert' and 'key' of 'tls'/],
  ] as const) {
    writeFileSync(file, JSON.stringify({ store: 'queue', topology, ...config }));
    const { code, stderr } = await runCli(['scheduler', '--config', file]);
    t.equal(code, 1);
    t.match(stderr, message);
    t.notMatch(stderr, /--listen|--tls|--insecure/);
  }
});

t.test('hot spots stand in the configuration, or in a file of their own with its own files', async (t) => {
  const right = { store: 'queue', topology: { hosts: [], switches: [], links: [] } };
  const alerts = { alerts: { listen: '127.0.0.1:0', 'token-file': 'token' } };
  t.match(schedulerConfigOf({ ...right, 'hot-spots': alerts }).hotSpots, { alerts: { tokenFile: 'token' } });
  t.equal(schedulerConfigOf({ ...right, 'hot-spots': 'etc/hot-spots.json' }).hotSpots, 'etc/hot-spots.json');
  const wrong = { code: 'INVALID_ARGUMENT', message: /hot-spots: give an object/ };
  t.throws(() => schedulerConfigOf({ ...right, 'hot-spots': 5 }), wrong);
  const folder = scratchDir(t, 'config');
  const file = join(folder, 'scheduler.json');
  mkdirSync(join(folder, 'etc'), { recursive: true });
  const refused = async (hotSpots: unknown, message: RegExp): Promise<void> => {
    writeFileSync(file, JSON.stringify({ ...right, 'hot-spots': hotSpots }));
    const { code, stderr } = await runCli(['scheduler', '--config', file]);
    t.equal(code, 1);
    t.match(stderr, message);
  };
  await refused(alerts, new RegExp(`cannot read the token ${join(folder, 'token')}: ENOENT`));
  await refused(
    'etc/hot-spots.json',
    new RegExp(`cannot read ${join(folder, 'etc/hot-spots.json')}: ENOENT`),
  );
  writeFileSync(join(folder, 'etc/hot-spots.json'), JSON.stringify(alerts));
  await refused(
    'etc/hot-spots.json',
    new RegExp(`cannot read the token ${join(folder, 'etc/token')}: ENOENT`),
  );
});
