import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, constants, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs';
import type { Test } from 'tap';
import t from 'tap';
import { mountsAt } from '../../src/fs/mount-table.js';
import { TRANSPORTS } from '../posix/compare.js';
import { FileUser } from '../support/file-user.js';
import { makeSparseImage } from '../support/files.js';
import { descriptorFlags } from '../support/held-backing.js';
import { migrate, startPair } from '../support/pair.js';
import { runOk } from '../support/run.js';
import { scratchDir } from '../support/scratch.js';
import type { Transport } from '../support/test-daemon.js';
import { TestDaemon, within } from '../support/test-daemon.js';
import { waitFor } from '../support/wait-for.js';

const END_MAX_MS = 20_000;
const MiB = 2 ** 20;

const start = async (t: Test, transport: Transport): Promise<{ daemon: TestDaemon; user: FileUser }> => {
  const daemon = await TestDaemon.start(t, { transport });
  writeFileSync(daemon.at('disk'), 'before');
  return { daemon, user: await FileUser.start(t, daemon.at('disk')) };
};

/** Signals and resolves to the next line of the log that says what came of it. */
const signalled = (daemon: TestDaemon, said: RegExp): Promise<string> => {
  const line = daemon.logged((logged) => said.test(logged));
  process.kill(daemon.pid, 'SIGTERM');
  return within(line, END_MAX_MS, () => `the log does not say ${said}`);
};

for (const transport of TRANSPORTS) {
  void t.test(`${transport}: the refusal names who holds a file open, and what to do`, async (t) => {
    const { daemon, user } = await start(t, transport);
    const line = await signalled(daemon, /still serving/);
    t.match(line, `pid ${user.pid}, ${daemon.at('disk')}`);
    t.match(line, /close its files.*unmount --lazy/);
    t.equal(line.split('close its files').length, 2, 'said once');
    t.equal(await user.write(0, 'after'), '5', 'it goes on serving');
    t.equal(readFileSync(daemon.at('disk'), 'utf8'), 'aftere');
  });

  void t.test(`${transport}: a second signal detaches, open files stay usable, then it ends`, async (t) => {
    const { daemon, user } = await start(t, transport);
    await signalled(daemon, /still serving/);
    await signalled(daemon, /"detached/);
    t.notOk(daemon.mounted, 'nothing new can be opened');
    t.equal(await user.write(0, 'after'), '5');
    await user.close();
    t.equal(readFileSync(daemon.below('disk'), 'utf8'), 'aftere');
    const { code } = await within(daemon.exited, END_MAX_MS, () => 'the daemon does not end');
    t.equal(code, 0);
  });

  void t.test(`${transport}: migratefs unmount`, async (t) => {
    const { daemon, user } = await start(t, transport);
    const refused = await daemon.cli(['unmount', daemon.mountpoint]);
    t.equal(refused.code, 1);
    t.match(refused.stderr, `pid ${user.pid}, ${daemon.at('disk')}`);
    t.ok(daemon.mounted);
    const other = await daemon.cli(['unmount', '/elsewhere']);
    t.equal(other.code, 1);
    t.match(other.stderr, `this daemon serves ${daemon.mountpoint}`);
    const lazy = await daemon.cli(['unmount', daemon.mountpoint, '--lazy', '--json']);
    t.equal(lazy.code, 0, lazy.stderr);
    t.match(JSON.parse(lazy.stdout), {
      mountpoint: daemon.mountpoint,
      lazy: true,
      holders: [{ pid: user.pid, path: daemon.at('disk') }],
    });
    t.notOk(daemon.mounted);
    t.equal(await user.write(0, 'after'), '5');
    await user.close();
    t.equal((await within(daemon.exited, END_MAX_MS, () => 'the daemon does not end')).code, 0);
  });

  void t.test(`${transport}: unmounted again, what is below the mount stays`, async (t) => {
    const folder = scratchDir(t, 'below');
    await runOk('mount', ['-t', 'tmpfs', 'mfs-below', folder]);
    const daemon = await TestDaemon.start(t, { transport, imageDir: folder, mountpoint: folder });
    writeFileSync(daemon.at('disk'), 'before');
    const user = await FileUser.start(t, daemon.at('disk'));
    t.equal((await daemon.cli(['unmount', folder, '--lazy'])).code, 0);
    const again = await daemon.cli(['unmount', folder, '--lazy']);
    t.equal(again.code, 1);
    t.match(again.stderr, 'detached already: the daemon ends when the last open file is closed');
    await user.close();
    await within(daemon.exited, END_MAX_MS, () => 'the daemon does not end');
    t.same(
      mountsAt(folder).map(({ source }) => source),
      ['mfs-below'],
    );
  });

  void t.test(`${transport}: what is mounted over the mount is left alone`, async (t) => {
    const daemon = await TestDaemon.start(t, { transport });
    await runOk('mount', ['-t', 'tmpfs', 'mfs-above', daemon.mountpoint]);
    const { code, stderr } = await daemon.cli(['unmount', daemon.mountpoint]);
    t.equal(code, 1);
    t.match(stderr, `another file system (mfs-above) is mounted over ${daemon.mountpoint}: unmount that one`);
    t.equal(mountsAt(daemon.mountpoint).length, 2);
    await runOk('umount', [daemon.mountpoint]);
    t.equal((await daemon.cli(['unmount', daemon.mountpoint])).code, 0);
  });

  void t.test(`${transport}: migratefs unmount of what nobody uses`, async (t) => {
    const daemon = await TestDaemon.start(t, { transport });
    const { code, stdout } = await daemon.cli(['unmount', daemon.mountpoint]);
    t.equal(code, 0);
    t.equal(stdout, `${daemon.mountpoint}: unmounted\n`);
    t.equal((await within(daemon.exited, END_MAX_MS, () => 'the daemon does not end')).code, 0);
    t.notOk(daemon.mounted);
  });
}

t.test('a copy in another mount namespace keeps the daemon, and the log says whose', async (t) => {
  const daemon = await TestDaemon.start(t);
  const keeper = spawn('unshare', ['--mount', '--propagation', 'private', 'sh', '-c', 'echo; read wait'], {
    stdio: ['pipe', 'pipe', 'ignore'],
  });
  t.teardown(() => keeper.kill());
  await once(keeper.stdout, 'data');
  const line = await signalled(daemon, /other mount namespaces/);
  t.match(line, `pid ${keeper.pid}, ${daemon.mountpoint}`);
  t.notOk(daemon.mounted);
  keeper.stdin.end('\n');
  t.equal((await within(daemon.exited, END_MAX_MS, () => 'the daemon does not end')).code, 0);
});

t.test('a migration under way is not ended by the first signal', async (t) => {
  const pair = await startPair(t);
  makeSparseImage(pair.source.daemon.below('vm.raw'), 8 * MiB, [{ offset: 0, length: 8 * MiB }]);
  const migration = await migrate(t, pair, ['vm.raw'], { netLimit: 64 * 1024 });
  t.match(await signalled(pair.source.daemon, /still serving/), `migratefs cancel ${migration.id}`);
  t.ok(pair.source.daemon.mounted);
  await pair.source.client.cancel(migration.id);
  await migration.reaches('cancelled');
  await pair.source.daemon.stop();
});

t.test(
  'G1: a killed process does not wait for a limit, and nothing of its write is made after its end',
  async (t) => {
    const pair = await startPair(t);
    const { daemon } = pair.source;
    makeSparseImage(daemon.below('vm.raw'), 8 * MiB, [{ offset: 0, length: 8 * MiB }]);
    const before = readFileSync(daemon.below('vm.raw'));
    const user = await FileUser.start(t, daemon.at('vm.raw'));
    const migration = await migrate(t, pair, ['vm.raw'], { netLimit: 64 * 1024, diskLimit: 1000 });
    // The first takes what the token bucket holds at the start.
    const fd = openSync(daemon.at('vm.raw'), constants.O_RDWR);
    writeSync(fd, before, MiB, 64 * 1024, MiB);
    closeSync(fd);
    void user.write(0, 'x'.repeat(1000));
    const waitsFor = (): string => readFileSync(`/proc/${user.pid}/wchan`, 'utf8');
    before.fill('x', 0, 1000);
    // Killed before, it would be taken back: that is no less right, and another case.
    await waitFor(
      () => readFileSync(daemon.below('vm.raw')).equals(before),
      'the limit holds only its answer back',
    );
    await waitFor(() => /request_wait|fuse/.test(waitsFor()), 'the write waits for the daemon');
    user.kill('SIGKILL');
    t.equal(await within(user.ended, END_MAX_MS, () => 'it does not end'), 'SIGKILL');
    before.fill('y', 0, 1000);
    const backing = openSync(daemon.below('vm.raw'), 'r+');
    writeSync(backing, before, 0, 1000, 0);
    closeSync(backing);
    // Another file gets the number of the descriptor that the write was to go to.
    await waitFor(() => descriptorFlags(daemon.pid, 'vm.raw').length === 1, 'only the migration has it open');
    writeFileSync(daemon.at('other'), 'o'.repeat(4096));
    const others = Array.from({ length: 4 }, () => openSync(daemon.at('other'), 'r+'));
    await pair.source.client.cancel(migration.id);
    await migration.reaches('cancelled');
    t.equal(readFileSync(daemon.at('vm.raw')).compare(before), 0, 'what was written since is there');
    t.equal(readFileSync(daemon.at('other'), 'utf8'), 'o'.repeat(4096), 'nor elsewhere');
    for (const other of others) closeSync(other);
  },
);
