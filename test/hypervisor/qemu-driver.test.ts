import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { Monitor } from '../../src/broker/hypervisor/monitor.js';
import { QemuDriver, type QemuDriverOptions } from '../../src/broker/hypervisor/qemu-driver.js';
import { ExecDriver } from '../../src/broker/scheduler/exec-driver.js';
import type { MoveJob, MoveProgress } from '../../src/broker/scheduler/hypervisor-driver.js';
import { systemClock } from '../../src/leaves/clock.js';
import { millis } from '../../src/leaves/units.js';
import { guardProcess, releaseProcess, scratchDir } from '../support/scratch.js';
import { waitFor } from '../support/wait-for.js';

const never = (): AbortSignal => new AbortController().signal;

/** A VM without disks: its firmware finds nothing to boot and waits. */
const startQemu = async (t: Test, folder: string, name: string, ...args: string[]) => {
  const child = spawn(
    'qemu-system-x86_64',
    [
      ...['-accel', 'tcg', '-machine', 'pc', '-m', '256M', '-nodefaults', '-display', 'none'],
      // One monitor for the driver, one for the test: each serves one client.
      ...['driver', 'test'].flatMap((id) => [
        ...['-chardev', `socket,id=${id},path=${join(folder, `${name}-${id}`)},server=on,wait=off`],
        ...['-mon', `chardev=${id},mode=control`],
      ]),
      ...args,
    ],
    { stdio: 'ignore' },
  );
  guardProcess(child.pid!);
  const exited = once(child, 'exit').then(() => releaseProcess(child.pid!));
  const kill = async (): Promise<void> => {
    child.kill('SIGKILL');
    await exited;
  };
  t.teardown(kill);
  let opened: Monitor | undefined;
  await waitFor(async () => {
    opened = await Monitor.open(`unix:${folder}/${name}-test`, name, {
      clock: systemClock,
      answerMax: millis(10_000),
    }).catch(() => undefined);
    return opened !== undefined;
  }, `QEMU ${name}`);
  const monitor = opened!;
  t.teardown(() => monitor[Symbol.dispose]());
  return { monitor, kill, exited };
};

const setUp = async (t: Test, options: Partial<QemuDriverOptions> = {}) => {
  const folder = scratchDir(t, 'qemu');
  const said: string[] = [];
  const driver = new QemuDriver({
    source: `unix:${folder}/{source}-driver`,
    target: `unix:${folder}/{target}-driver`,
    migrate: `unix:${folder}/{vm}`,
    capabilities: [],
    timeout: millis(60_000),
    clock: systemClock,
    log: (_, message) => said.push(message),
    ...options,
  });
  const job: MoveJob = {
    ...{ task: 't1', attempt: 1, vm: 'vm7', images: [], source: 'a', target: 'b', migrationId: 'm' },
  };
  return {
    ...{ driver, job, said, folder },
    start: (name: string, ...args: string[]) => startQemu(t, folder, name, ...args),
  };
};

/** Has the VM take a minute to be sent. */
const slow = (monitor: Monitor): Promise<unknown> =>
  monitor.call('migrate-set-parameters', { 'max-bandwidth': 10_000 });

const isSending = async (monitor: Monitor): Promise<boolean> =>
  (await monitor.migration()).status === 'active';

t.test('a VM moves, the QEMU it left ends, and asking again changes nothing', async (t) => {
  const { driver, job, said, start } = await setUp(t);
  const [a, b] = [await start('a'), await start('b', '-incoming', 'defer')];
  let last: MoveProgress = {};
  await driver.move(job, never(), (progress) => {
    last = progress;
  });
  t.equal(await b.monitor.runState(), 'running');
  t.match(last, { ramSent: Number, ramLeft: 0, vmDowntime: Number }, 'it reports what QEMU says of it');
  t.ok(last.ramSent! > 0);
  await a.exited;
  t.equal(said.at(-1), 'QEMU has moved the VM');
  await driver.move(job, never());
  t.equal(await driver.stop(job), 'moved');
  await t.rejects(driver.rollBack(job, never()), { code: 'ABORTED', message: /runs on b already/ });
  t.equal(await b.monitor.runState(), 'running', 'what runs is not discarded');
});

t.test('a move that another process has begun is waited for, not begun again', async (t) => {
  const { driver, job, start } = await setUp(t);
  const [a, b] = [await start('a'), await start('b', '-incoming', 'defer')];
  await slow(a.monitor);
  const dying = new AbortController();
  const first = driver.move(job, dying.signal);
  first.catch(() => undefined);
  await waitFor(() => isSending(a.monitor), 'the VM is being sent');
  dying.abort(new Error('killed'));
  await t.rejects(first, { message: 'killed' });
  t.ok(await isSending(a.monitor), 'the move itself goes on');
  const second = driver.move(job, never());
  await a.monitor.call('migrate-set-parameters', { 'max-bandwidth': 10 ** 9 });
  await second;
  t.equal(await b.monitor.runState(), 'running');
});

t.test('a move that is stopped leaves the VM running on the source, and no QEMU on the target', async (t) => {
  const { driver, job, start } = await setUp(t);
  const [a, b] = [await start('a'), await start('b', '-incoming', 'defer')];
  await slow(a.monitor);
  const cancel = new AbortController();
  const moving = driver.move(job, cancel.signal);
  moving.catch(() => undefined);
  await waitFor(() => isSending(a.monitor), 'the VM is being sent');
  cancel.abort(new Error('cancelled'));
  await t.rejects(moving, { message: 'cancelled' });
  t.equal(await driver.stop(job), 'not-moved');
  await driver.rollBack(job, never());
  await b.exited;
  t.equal(await a.monitor.runState(), 'running');
  const again = await start('b', '-incoming', 'defer');
  await a.monitor.call('migrate-set-parameters', { 'max-bandwidth': 10 ** 9 });
  await driver.move({ ...job, attempt: 2 }, never());
  t.equal(await again.monitor.runState(), 'running', 'the next attempt succeeds');
});

t.test('a move that is stopped ends the command that starts the QEMU on the target', async (t) => {
  const commands = scratchDir(t, 'commands');
  const pidFile = join(commands, 'pid');
  const starter = new ExecDriver({
    command: ['/bin/sh', '-c', `echo $$ >'${pidFile}.new'; mv '${pidFile}.new' '${pidFile}'; exec sleep 600`],
    ...{ timeout: millis(600_000), folder: join(commands, 'runs'), clock: systemClock, env: process.env },
  });
  const { driver, job, start } = await setUp(t, { starter });
  const a = await start('a');
  const cancel = new AbortController();
  const moving = driver.move(job, cancel.signal);
  moving.catch(() => undefined);
  await waitFor(() => existsSync(pidFile), 'the command runs');
  const pid = Number(readFileSync(pidFile, 'utf8'));
  t.teardown(() => starter.stop(job));
  cancel.abort(new Error('cancelled'));
  await t.rejects(moving, { message: 'cancelled' });
  t.equal(await driver.stop(job), 'not-moved');
  t.notOk(existsSync(`/proc/${pid}`));
  await driver.rollBack(job, never());
  t.equal(await a.monitor.runState(), 'running');
});

t.test(
  'a target that dies meanwhile, and one that is too slow, fail the move and nothing else',
  async (t) => {
    const { driver, job, start, folder } = await setUp(t);
    const [a, b] = [await start('a'), await start('b', '-incoming', 'defer')];
    await slow(a.monitor);
    const moving = driver.move(job, never());
    moving.catch(() => undefined);
    await waitFor(() => isSending(a.monitor), 'the VM is being sent');
    await b.kill();
    await t.rejects(moving, { code: 'ABORTED', message: /as failed/ });
    t.equal(await driver.stop(job), 'not-moved');
    await driver.rollBack(job, never());
    t.equal(await a.monitor.runState(), 'running');

    const hasty = new QemuDriver({
      ...{
        source: `unix:${folder}/a-driver`,
        target: `unix:${folder}/b-driver`,
        migrate: `unix:${folder}/m2`,
      },
      ...{ capabilities: [], timeout: millis(1500), clock: systemClock, log: () => undefined },
    });
    const next = await start('b', '-incoming', 'defer');
    await t.rejects(hasty.move(job, never()), { code: 'DEADLINE_EXCEEDED', message: /within 1\.5 s/ });
    t.equal(await a.monitor.runState(), 'running');
    await next.exited;
  },
);

t.test('G3: a stopped source goes on only when nobody can have its VM', async (t) => {
  const { driver, job, start, folder } = await setUp(t);
  const [a, b] = [await start('a'), await start('b', '-incoming', 'defer')];
  // As a driver that died after the VM was sent.
  const lost = await start('c', '-incoming', `unix:${folder}/x`);
  await a.monitor.call('migrate', { uri: `unix:${folder}/x` });
  await waitFor(async () => (await a.monitor.runState()) === 'postmigrate', 'the VM is sent');
  await lost.kill();
  const elsewhere = { ...job, target: 'c' };
  await t.rejects(driver.rollBack(elsewhere, never()), {
    code: 'ABORTED',
    message: /nobody knows .* enter 'cont'/,
  });
  t.equal(await a.monitor.runState(), 'postmigrate');
  // The target that answers never got anything.
  await driver.rollBack(job, never());
  await b.exited;
  t.equal(await a.monitor.runState(), 'running');
  t.equal(await driver.stop(job), 'not-moved', 'what it gave away once does not count any more');
});

t.test('G3: a move whose QEMUs cannot be asked any more has ended nobody knows how', async (t) => {
  const { driver, job, folder, start } = await setUp(t);
  const [a, b] = [await start('a'), await start('b', '-incoming', 'defer')];
  await slow(a.monitor);
  const broken = new AbortController();
  const move = driver.move({ ...job, first: true }, broken.signal);
  move.catch(() => undefined);
  await waitFor(() => isSending(a.monitor), 'the VM is being sent');
  broken.abort(new Error('broken'));
  await t.rejects(move, { message: 'broken' });
  const away = (side: string): void =>
    renameSync(join(folder, `${side}-driver`), join(folder, `${side}-away`));
  away('a');
  away('b');
  await t.rejects(driver.stop(job), { code: 'UNAVAILABLE', message: /QEMU of vm7 on b cannot be reached/ });
  t.ok(await isSending(a.monitor), 'it goes on');
  renameSync(join(folder, 'b-away'), join(folder, 'b-driver'));
  t.equal(await driver.stop(job), 'not-moved');
  await b.exited;
  await waitFor(async () => (await a.monitor.migration()).status === 'failed', 'it comes to nothing');
  t.equal(await a.monitor.runState(), 'running');
});

t.test('what cannot work is refused before anything moves', async (t) => {
  const { driver, job, start } = await setUp(t, { capabilities: ['x-no-such-thing'] });
  await t.rejects(driver.move({ ...job, first: true }, never()), {
    code: 'UNAVAILABLE',
    message: /QEMU of vm7 on a cannot be reached/,
  });
  t.equal(await driver.stop(job), 'not-moved');
  await t.rejects(
    driver.stop({ ...job, attempt: 2 }),
    { code: 'UNAVAILABLE' },
    'whoever asks may have begun it',
  );
  await t.rejects(driver.rollBack(job, never()), { code: 'UNAVAILABLE' });
  const a = await start('a');
  await t.rejects(driver.move(job, never()), {
    code: 'UNAVAILABLE',
    message: /QEMU of vm7 on b cannot be reached/,
  });
  const busy = await start('b');
  await t.rejects(driver.move(job, never()), { code: 'FAILED_PRECONDITION', message: /-incoming defer/ });
  await busy.kill();
  await start('b', '-incoming', 'defer');
  await t.rejects(driver.move(job, never()), {
    code: 'FAILED_PRECONDITION',
    message: /does not have the capability 'x-no-such-thing'/,
  });
  t.equal(await a.monitor.runState(), 'running');
});
