import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Test } from 'tap';
import t from 'tap';
import { mountsAt } from '../../src/fs/mount-table.js';
import { KernelMount } from '../support/kernel-mount.js';

const scratch = (t: Test): string => {
  const dir = mkdtempSync(join(tmpdir(), 'mfs-kernel-'));
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
};

t.test('mounted over the image directory itself', async (t) => {
  const mount = await KernelMount.start(t, { over: true });
  t.ok(mount.mounted);
  writeFileSync(mount.path('image'), 'through the mount');
  mkdirSync(mount.path('sub'));
  writeFileSync(mount.path('sub/other'), '');
  t.equal(await mount.tell('unmount'), 'closed');
  t.equal(await mount.exited, 0);
  t.notOk(mount.mounted);
  t.same(readdirSync(mount.dir).sort(), ['image', 'sub']);
  t.equal(readFileSync(join(mount.dir, 'image'), 'utf8'), 'through the mount');
});

t.test('what cannot be mounted is refused with cause and remedy', async (t) => {
  const dir = scratch(t);
  const inside = join(dir, 'inside');
  const file = join(dir, 'file');
  const other = scratch(t);
  mkdirSync(inside);
  writeFileSync(file, '');
  const cases: [string, string, RegExp][] = [
    [join(dir, 'none'), other, /NOT_FOUND image directory .* does not exist: create it/],
    [file, other, /INVALID_ARGUMENT image directory .* is not a directory/],
    [dir, join(dir, 'none'), /NOT_FOUND mount point .* does not exist: create it/],
    [dir, file, /INVALID_ARGUMENT mount point .* is not a directory/],
    [dir, inside, /INVALID_ARGUMENT mount point .* lies inside the image directory/],
  ];
  for (const [image, mountpoint, expected] of cases)
    t.match(await KernelMount.failure(t, image, mountpoint), expected);
  t.notMatch(readFileSync('/proc/self/mounts', 'utf8'), dir);
});

t.test('not root: the error says so', async (t) => {
  const dir = scratch(t);
  const entry = new URL('../support/mount-process.js', import.meta.url).pathname;
  const run = spawnSync('setpriv', ['--bounding-set=-sys_admin', process.execPath, entry, dir, dir], {
    encoding: 'utf8',
  });
  t.match(run.stdout, /^error PERMISSION_DENIED no permission to mount on .*: run as root/);
  t.equal(run.status, 1);
});

t.test('a mount whose daemon was killed is named with its remedy', async (t) => {
  const mount = await KernelMount.start(t);
  mount.kill();
  await mount.exited;
  t.match(
    await KernelMount.failure(t, mount.dir, mount.mountpoint),
    /FAILED_PRECONDITION mount point .* daemon has died: detach it with umount -l/,
  );
  execFileSync('umount', ['-l', mount.mountpoint]);
  t.notOk(mount.mounted);
});

t.test('unmounting with open files is refused and serving goes on; lazily it waits for them', async (t) => {
  const mount = await KernelMount.start(t);
  const fd = openSync(mount.path('image'), 'w+');
  t.match(
    await mount.tell('unmount'),
    /^error FAILED_PRECONDITION .* is in use .*: close its files, or detach it lazily/,
  );
  writeSync(fd, 'still served');
  t.equal(readFileSync(mount.path('image'), 'utf8'), 'still served');
  const unmounted = mount.tell('unmount lazy');
  const gone = once(
    spawn('sh', ['-c', `while grep -q ' ${mount.mountpoint} ' /proc/self/mounts; do :; done`]),
    'exit',
  );
  await gone;
  writeSync(fd, ', detached');
  closeSync(fd);
  t.equal(await unmounted, 'closed');
  t.equal(await mount.exited, 0);
  t.equal(readFileSync(join(mount.dir, 'image'), 'utf8'), 'still served, detached');
});

t.test('an administrator unmounts it', async (t) => {
  const mount = await KernelMount.start(t);
  execFileSync('umount', [mount.mountpoint]);
  t.equal(await mount.answer(), 'closed');
  t.equal(await mount.exited, 0);
});

t.test('a thread that crashes ends the mount instead of hanging it', async (t) => {
  const mount = await KernelMount.start(t);
  const fd = openSync(mount.path('image'), 'w+');
  t.equal(await mount.tell('crash'), 'crashed');
  t.match(await mount.answer(), /^error INTERNAL a file system thread has crashed/);
  t.match(mount.stderr, /a file system thread has crashed/);
  t.throws(() => writeSync(fd, 'x'), 'open files fail');
  t.notOk(mount.mounted);
  t.throws(() => closeSync(fd));
});

t.test('a thread that crashes takes nothing away but the mount', async (t) => {
  const mount = await KernelMount.start(t, { over: true, ownDisk: true });
  t.equal(await mount.tell('crash'), 'crashed');
  await mount.exited;
  t.same(
    mountsAt(mount.dir).map(({ source }) => source),
    ['mfs-disk'],
  );
});

t.test('a mount point that is mounted already is busy', async (t) => {
  const mount = await KernelMount.start(t, { over: true });
  const other = scratch(t);
  t.match(
    await KernelMount.failure(t, other, mount.mountpoint),
    /FAILED_PRECONDITION mount point .* is busy: migratefs:.* is mounted there: unmount it first/,
  );
  t.ok(mount.mounted);
});

t.test('symlinked mount points are resolved', async (t) => {
  const dir = scratch(t);
  mkdirSync(join(dir, 'images'));
  symlinkSync('images', join(dir, 'alias'));
  t.match(await KernelMount.failure(t, join(dir, 'alias'), join(dir, 'images', '..', 'none')), /NOT_FOUND/);
  mkdirSync(join(dir, 'images/sub'));
  t.match(await KernelMount.failure(t, join(dir, 'alias'), join(dir, 'alias/sub')), /lies inside/);
  t.ok(statSync(join(dir, 'images')).isDirectory());
});
