/** Locks between processes of one host: the kernel keeps them, and a hypervisor's own image locking rests on them. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { constants, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { MiB } from '../../src/leaves/units.js';
import { OtherProcess } from '../support/other-process.js';
import { run, runOk, unwatched } from '../support/run.js';
import { guardProcess, releaseProcess, scratchDir, type Teardown } from '../support/scratch.js';
import { TestDaemon } from '../support/test-daemon.js';

const { O_RDWR } = constants;
const [READ, WRITE, UNLOCK] = [0, 1, 2];
const [LOCK_SH, LOCK_EX, LOCK_NB, LOCK_UN] = [1, 2, 4, 8];
const HIGH = 2 ** 32;
/** EAGAIN by its other name. */
const REFUSED = 'EWOULDBLOCK';

/** Keeps an image open for as long as the test lasts, or until `kill`. */
const openInQemu = async (t: Teardown, ...args: string[]): Promise<{ kill(): Promise<void> }> => {
  const child = spawn(...unwatched('qemu-io', args), { stdio: ['pipe', 'pipe', 'inherit'] });
  guardProcess(child.pid!);
  const kill = async (): Promise<void> => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill('SIGKILL');
    await once(child, 'exit');
    releaseProcess(child.pid!);
  };
  t.teardown(kill);
  const ended = once(child, 'exit').then(() => {
    throw new Error('qemu-io does not open the image');
  });
  ended.catch(() => undefined); // later it may end
  await Promise.race([once(child.stdout!, 'data'), ended]); // its prompt
  return { kill };
};

t.test('locks', async (t) => {
  const daemon = await TestDaemon.start(t);
  writeFileSync(daemon.at('image'), Buffer.alloc(MiB));
  const start = (t: Teardown): Promise<OtherProcess> => OtherProcess.start(t, daemon.at('image'), O_RDWR);

  for (const kind of ['posix', 'ofd'])
    await t.test(`${kind} locks of ranges past 2^32`, async (t) => {
      const [a, b] = [await start(t), await start(t)];
      const below = await OtherProcess.start(t, daemon.below('image'), O_RDWR);
      t.equal(await a.call(kind, WRITE!, HIGH + 100, 104), 0);
      t.equal(await b.call(kind, WRITE!, HIGH + 100, 104), REFUSED);
      t.equal(await b.call(kind, READ!, HIGH + 203, 1), REFUSED, 'its last byte');
      t.equal(await b.call(kind, WRITE!, HIGH + 204, 1), 0, 'the byte after it');
      t.equal(await b.call(kind, WRITE!, HIGH + 99, 1), 0, 'the byte before it');
      t.equal(await b.call(kind, WRITE!, 100, 104), 0, 'the same place below 2^32');
      t.equal(await b.call(kind, WRITE!, 2 ** 62, 0), 0, 'to the end, from 2^62');
      t.equal(await a.call(kind, WRITE!, 2 ** 63 - 1024, 1), REFUSED);
      t.equal(await below.call(kind, WRITE!, 0, 0), 0, 'the backing file is not locked');
      t.equal(await a.call(kind, UNLOCK!, HIGH + 150, 10), 0);
      t.equal(await b.call(kind, WRITE!, HIGH + 150, 10), 0, 'a part was given back');
      t.equal(await a.call('close'), 0);
      t.equal(await b.call(kind, WRITE!, HIGH, 1024), 0, 'closing drops a lock');
      t.equal(await a.call('open'), 0);
      t.equal(await a.call(kind, READ!, HIGH, 1), REFUSED);
      await b.kill();
      t.equal(await a.call(kind, WRITE!, 0, 0), 0, 'so does the end of its process');
    });

  await t.test('flock', async (t) => {
    const [a, b] = [await start(t), await start(t)];
    const below = await OtherProcess.start(t, daemon.below('image'), O_RDWR);
    t.equal(await a.call('flock', LOCK_SH! | LOCK_NB!), 0);
    t.equal(await b.call('flock', LOCK_SH! | LOCK_NB!), 0);
    t.equal(await b.call('flock', LOCK_EX! | LOCK_NB!), REFUSED);
    t.equal(await b.call('flock', LOCK_UN!), 0);
    t.equal(await a.call('flock', LOCK_EX! | LOCK_NB!), 0);
    t.equal(await b.call('flock', LOCK_SH! | LOCK_NB!), REFUSED);
    t.equal(await below.call('flock', LOCK_EX! | LOCK_NB!), 0, 'the backing file is not locked');
    await a.kill();
    t.equal(await b.call('flock', LOCK_EX! | LOCK_NB!), 0, 'the end of a process drops its lock');
  });

  for (const [where, folder] of Object.entries({
    'below the mount': daemon.mountpoint,
    plain: scratchDir(t),
  }))
    await t.test(`QEMU's image locking, ${where}`, async (t) => {
      const image = join(folder, 'disk.qcow2');
      await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', image, '64M']);
      const write = () => run('qemu-io', ['-f', 'qcow2', '-c', 'write -q 0 4k', image]);
      const info = (...options: string[]) => run('qemu-img', ['info', ...options, image]);

      const writer = await openInQemu(t, '-f', 'qcow2', image);
      t.match(await write(), { code: 1, stderr: /Failed to get "write" lock/ }, 'one writer');
      t.match(await info(), { code: 1, stderr: /Failed to get shared "write" lock/ }, 'and no reader beside');
      t.match(await info('-U'), { code: 0 }, 'unless it shares');
      await writer.kill();
      t.match(await write(), { code: 0 }, 'a killed hypervisor leaves no lock');

      const reader = await openInQemu(t, '-r', '-f', 'qcow2', image);
      t.match(await info(), { code: 0 }, 'readers share');
      t.match(await write(), { code: 1, stderr: /Failed to get "write" lock/ });
      await reader.kill();
      t.match(await write(), { code: 0 });
    });

  await daemon.stop();
});
