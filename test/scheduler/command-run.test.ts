import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { CommandRun, endWithin } from '../../src/broker/scheduler/command-run.js';
import { ExecDriver } from '../../src/broker/scheduler/exec-driver.js';
import type { MoveJob } from '../../src/broker/scheduler/hypervisor-driver.js';
import { systemClock } from '../../src/leaves/clock.js';
import { millis } from '../../src/leaves/units.js';
import { ManualClock } from '../support/manual-clock.js';
import { unwatched } from '../support/run.js';
import { guardProcess, releaseProcess, scratchDir } from '../support/scratch.js';
import { smallDisk } from '../support/small-disk.js';
import { waitFor } from '../support/wait-for.js';

const STARTER = fileURLToPath(new URL('../support/run-starter-process.js', import.meta.url));
const sh = (script: string): string[] => ['/bin/sh', '-c', script];
const env = { PATH: process.env['PATH'] };
const never = new AbortController().signal;

const job: MoveJob = {
  task: 't1',
  attempt: 2,
  vm: 'vm1',
  images: ['vm1/a b.raw', 'vm1/c.raw'],
  source: 'a',
  target: 'b',
  migrationId: 'm1',
};

const linesOf = (file: string): number =>
  existsSync(file) ? readFileSync(file, 'utf8').split('\n').length - 1 : 0;

t.test('started by many at once it runs once, and everybody gets its status', async (t) => {
  const folder = scratchDir(t, 'run');
  const file = join(folder, 'count');
  const runs = Array.from({ length: 8 }, () => new CommandRun(join(folder, 'run'), systemClock));
  await Promise.all(runs.map((run) => run.start(sh(`echo x >>"${file}"; sleep 0.2; exit 7`), env)));
  const results = await Promise.all(runs.map((run) => run.end()));
  t.same(
    results.map(({ status }) => status),
    Array.from({ length: 8 }, () => 7),
  );
  t.equal(linesOf(file), 1);
});

t.test(
  'what it printed last is known also when something that it has started holds its output open',
  async (t) => {
    const run = new CommandRun(join(scratchDir(t, 'run'), 'run'), systemClock);
    await run.start(sh('echo connecting; echo "no such domain" >&2; sleep 0.3 & exit 3'), env);
    t.same(await run.end(), { status: 3, how: 'ended' });
    t.equal(await run.lastLine(), 'no such domain');
  },
);

t.test('no file is made in the folder of a command that has ended: it may be deleted', async (t) => {
  const folder = scratchDir(t, 'run');
  const go = join(folder, 'go');
  const run = new CommandRun(join(folder, 'run'), systemClock);
  await run.start(sh(`echo printed; (until [ -e "${go}" ]; do sleep 0.05; done; echo late) & exit 0`), env);
  t.same(await run.end(), { status: 0, how: 'ended' });
  const files = readdirSync(run.folder);
  t.ok(run.copying, 'its output is still open');
  writeFileSync(go, '');
  await waitFor(() => !run.copying, 'its output is closed');
  t.same(
    readdirSync(run.folder).filter((name) => !files.includes(name)),
    [],
  );
  t.equal(await run.lastLine(), 'late');
});

t.test('its starter is killed: it goes on, and the next one finds its result', async (t) => {
  const folder = scratchDir(t, 'run');
  const file = join(folder, 'count');
  const command = sh(`echo x >>"${file}"; sleep 0.5; echo x >>"${file}"`);
  const child = spawn(...unwatched(process.execPath, [STARTER, join(folder, 'run'), ...command]), {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  guardProcess(child.pid!);
  await once(child.stdout, 'data');
  child.kill('SIGKILL');
  await once(child, 'close');
  releaseProcess(child.pid!);
  const run = new CommandRun(join(folder, 'run'), systemClock);
  await run.start(command, env);
  t.same(await run.end(), { status: 0, how: 'ended' });
  t.equal(linesOf(file), 2, 'begun once, ended once');
});

t.test('killed with all that it started; a run that has not begun never will', async (t) => {
  const folder = scratchDir(t, 'run');
  const pidFile = join(folder, 'pid');
  const run = new CommandRun(join(folder, 'run'), systemClock);
  await run.start(sh(`sleep 300 & echo $! >"${pidFile}"; wait`), env);
  await waitFor(() => linesOf(pidFile) === 1, 'it runs');
  t.same(await run.kill(), { status: 143, how: 'ended' });
  const pid = Number(readFileSync(pidFile, 'utf8'));
  await waitFor(
    () => !existsSync(`/proc/${pid}`) || / Z /.test(readFileSync(`/proc/${pid}/stat`, 'utf8')),
    'it is gone',
  );

  const late = new CommandRun(join(folder, 'late'), systemClock);
  await late.kill();
  const file = join(folder, 'count');
  await late.start(sh(`echo x >>"${file}"`), env);
  t.same(await late.end(), { status: undefined, how: 'not-begun' });
  t.equal(linesOf(file), 0);
});

t.test('one that never begins is noticed also by who waits for a moment at a time', async (t) => {
  const clock = new ManualClock();
  const run = new CommandRun(join(scratchDir(t, 'run'), 'run'), clock);
  const waitASecond = async () => {
    const over = new AbortController();
    const end = run.end(over.signal).catch(() => undefined);
    await clock.advance(1_000);
    over.abort();
    return end;
  };
  for (let second = 0; second < 10; second++) t.equal(await waitASecond(), undefined);
  t.same((await waitASecond()) ?? (await waitASecond()), { status: undefined, how: 'not-begun' });
});

t.test('a command that has just succeeded is not undone by the kill', async (t) => {
  const folder = scratchDir(t, 'run');
  const run = new CommandRun(join(folder, 'run'), systemClock);
  await run.start(
    sh('trap "exit 0" TERM; echo ready >"$0/ready"; while :; do sleep 0.05; done'.replaceAll('$0', folder)),
    env,
  );
  await waitFor(() => existsSync(join(folder, 'ready')), 'it runs');
  t.same(await run.kill(), { status: 0, how: 'ended' }, 'its own word counts');
});

t.test('its output is bounded, and does not stop it', async (t) => {
  const folder = scratchDir(t, 'run');
  const run = new CommandRun(join(folder, 'run'), systemClock);
  await run.start(sh('head -c 3000000 /dev/zero; exit 5'), env);
  t.same(await run.end(), { status: 5, how: 'ended' });
  await waitFor(() => statSync(run.outputFile).size === 65_536, 'what it printed first is kept');
});

t.test('it ends when it takes too long; waiting can be given up without ending it', async (t) => {
  const folder = scratchDir(t, 'run');
  const run = new CommandRun(join(folder, 'run'), systemClock);
  await run.start(sh('sleep 300'), env);
  await waitFor(() => run.begun, 'it runs');
  const stop = new AbortController();
  const waiting = run.end(stop.signal);
  stop.abort(new Error('enough'));
  await t.rejects(waiting, { message: 'enough' });
  const { late, status } = await endWithin(run, systemClock, millis(200), never);
  t.equal(late, true);
  t.equal(status, 143, 'its status is known, of SIGTERM');
});

t.test('the driver tells its command what to move, and says why it failed', async (t) => {
  const folder = scratchDir(t, 'driver');
  const seen = join(folder, 'seen');
  const options = { timeout: millis(10_000), folder: join(folder, 'runs'), clock: systemClock, env };
  const good = new ExecDriver({
    ...options,
    command: sh(`env | grep ^MIGRATEFS | sort >"${seen}"; echo "images $MIGRATEFS_IMAGES" >>"${seen}"`),
  });
  await good.move(job, never);
  t.same(readFileSync(seen, 'utf8').split('\n').filter(Boolean), [
    'MIGRATEFS_ATTEMPT=2',
    'MIGRATEFS_DEADLINE=',
    'MIGRATEFS_IMAGES=vm1/a b.raw',
    'MIGRATEFS_MIGRATION=m1',
    'MIGRATEFS_SOURCE=a',
    'MIGRATEFS_TARGET=b',
    'MIGRATEFS_TASK=t1',
    'MIGRATEFS_VM=vm1',
    'images vm1/a b.raw',
    'vm1/c.raw',
  ]);
  t.equal(await good.stop(job), 'moved', 'remembered');
  const back = join(folder, 'back');
  const bad = new ExecDriver({
    ...options,
    folder: join(folder, 'bad'),
    command: sh('echo connecting; echo "no such domain" >&2; exit 3'),
    rollback: sh(`echo x >>"${back}"`),
  });
  const output = join(folder, 'bad', 't1', 'move-2', 'output');
  await t.rejects(bad.move(job, never), {
    code: 'ABORTED',
    message: `the driver ended with status 3 (no such domain): see ${output}`,
  });
  t.equal(await bad.stop(job), 'not-moved');
  await bad.rollBack(job, never);
  await bad.rollBack(job, never);
  t.equal(linesOf(back), 1, 'rolled back once');
  const slow = new ExecDriver({
    ...options,
    timeout: millis(300),
    folder: join(folder, 'slow'),
    command: sh('sleep 300'),
  });
  await t.rejects(slow.move(job, never), { code: 'DEADLINE_EXCEEDED', message: /took longer than 300 ms/ });
  bad.forget('t1');
  t.notOk(existsSync(join(folder, 'bad', 't1')));
});

t.test('a disk that becomes full does not make a success look like a failure', async (t) => {
  const folder = scratchDir(t, 'full');
  await smallDisk(t, folder, 1 << 20);
  const run = new CommandRun(join(folder, 'run'), systemClock);
  const fill = `cat /dev/zero >"${folder}/ballast" 2>/dev/null; echo 12345 >"${folder}/more"`;
  await run.start(sh(`${fill} && exit 9; exit 0`), env);
  t.same(await run.end(), { status: 0, how: 'ended' }, '9: the disk was not full');

  // Ten times as fast: that nobody makes the claim is waited for.
  const clock = { ...systemClock, now: () => millis(systemClock.now() * 10) };
  const late = new CommandRun(join(folder, 'late'), clock);
  const file = join(scratchDir(t, 'elsewhere'), 'count');
  await late.start(sh(`echo x >"${file}"`), env);
  t.same(await late.end(), { status: undefined, how: 'not-begun' }, 'one that does not fit does not begin');
  t.equal(linesOf(file), 0);
});

t.test('a claim that could not be written is none, and keeps others from making one', async (t) => {
  const folder = scratchDir(t, 'run');
  writeFileSync(join(folder, 'claim'), '');
  const run = new CommandRun(folder, systemClock);
  await run.start(sh(`echo x >>"${folder}/count"`), env);
  t.same(await run.end(), { status: undefined, how: 'not-begun' });
  t.equal(linesOf(join(folder, 'count')), 0);
});

t.test('whether a move has succeeded is not known when nobody recorded its end', async (t) => {
  const folder = scratchDir(t, 'driver');
  const back = join(folder, 'back');
  const driver = new ExecDriver({
    timeout: millis(10_000),
    folder: join(folder, 'runs'),
    clock: systemClock,
    env,
    command: sh('sleep 300'),
    rollback: sh(`echo x >>"${back}"`),
  });
  const moving = driver.move(job, never);
  const claim = join(folder, 'runs', 't1', 'move-2', 'claim');
  const status = join(folder, 'runs', 't1', 'move-2', 'status');
  await waitFor(() => existsSync(claim) && existsSync(status), 'it runs');
  process.kill(-Number(readFileSync(claim, 'utf8').split(' ')[0]), 'SIGKILL');
  await t.rejects(moving, { code: 'ABORTED', message: /is gone, and how it ended is not recorded/ });
  await t.rejects(driver.stop(job), { code: 'UNAVAILABLE', message: /how it ended is not recorded/ });
});

t.test('a command that does not end when it is told to is killed, and has not succeeded', async (t) => {
  const folder = scratchDir(t, 'run');
  const run = new CommandRun(join(folder, 'run'), systemClock);
  await run.start(sh(`trap "" TERM; echo x >"${folder}/ready"; sleep 300`), env);
  await waitFor(() => existsSync(join(folder, 'ready')), 'it runs');
  // Its grace passes at once.
  const clock = {
    ...systemClock,
    after: (_: number, then: () => void) => systemClock.after(millis(50), then),
  };
  t.same(await new CommandRun(run.folder, clock).kill(), { status: undefined, how: 'killed' });
  t.same(await run.end(), { status: undefined, how: 'killed' }, 'which is remembered');
});
