import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  closeSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  renameSync,
  rmdirSync,
  statfsSync,
  statSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { AT_FDCWD, cString, mknodat, RENAME_NOREPLACE, renameat2, utimensat } from '../../src/fs/libc.js';
import { KernelMount } from '../support/kernel-mount.js';

const RENAME_EXCHANGE = 2;

t.test('directories, links, names and modes', async (t) => {
  const mount = await KernelMount.start(t);
  const at = (name: string) => mount.path(name);
  mkdirSync(at('d'));
  t.throws(() => mkdirSync(at('d')), { code: 'EEXIST' });
  writeFileSync(at('d/a'), 'hello');
  linkSync(at('d/a'), at('hard'));
  t.equal(statSync(at('hard')).ino, statSync(at('d/a')).ino, 'hard links are one inode');
  t.equal(statSync(at('hard')).ino, statSync(join(mount.dir, 'hard')).ino);
  t.equal(statSync(at('d/a')).nlink, 2);
  symlinkSync('d/a', at('soft'));
  t.equal(readlinkSync(at('soft')), 'd/a');
  t.equal(readFileSync(at('soft'), 'utf8'), 'hello');
  t.ok(lstatSync(at('soft')).isSymbolicLink());
  t.throws(() => rmdirSync(at('d')), { code: 'ENOTEMPTY' });
  renameSync(at('d'), at('e'));
  t.equal(readFileSync(at('e/a'), 'utf8'), 'hello');
  unlinkSync(at('e/a'));
  t.equal(statSync(at('hard')).nlink, 1);
  rmdirSync(at('e'));
  t.throws(() => statSync(at('e')), { code: 'ENOENT' });
  chmodSync(at('hard'), 0o4751);
  t.equal(statSync(at('hard')).mode & 0o7777, 0o4751);
  chownSync(at('hard'), 12, 34);
  t.match(statSync(at('hard')), { uid: 12, gid: 34 });
  t.throws(() => writeFileSync(at('x'.repeat(256)), ''), { code: 'ENAMETOOLONG' });
  writeFileSync(at('x'.repeat(255)), '');
  t.ok(existsSync(join(mount.dir, 'x'.repeat(255))));
  const raw = Buffer.concat([Buffer.from(`${mount.mountpoint}/`), Buffer.of(0xff, 0xfe, 0x41)]);
  writeFileSync(raw, 'raw');
  t.ok(
    readdirSync(Buffer.from(mount.dir), { encoding: 'buffer' }).some((name) =>
      name.equals(Buffer.of(0xff, 0xfe, 0x41)),
    ),
  );
});

t.test('rename flags', async (t) => {
  const mount = await KernelMount.start(t);
  const at = (name: string) => cString(mount.path(name));
  writeFileSync(mount.path('a'), 'a');
  writeFileSync(mount.path('b'), 'b');
  t.not(renameat2(AT_FDCWD, at('a'), AT_FDCWD, at('b'), RENAME_NOREPLACE), 0);
  t.equal(readFileSync(mount.path('b'), 'utf8'), 'b');
  t.equal(renameat2(AT_FDCWD, at('a'), AT_FDCWD, at('b'), RENAME_EXCHANGE), 0);
  t.equal(readFileSync(mount.path('a'), 'utf8'), 'b');
  t.equal(readFileSync(mount.path('b'), 'utf8'), 'a');
  t.equal(renameat2(AT_FDCWD, at('a'), AT_FDCWD, at('c'), RENAME_NOREPLACE), 0);
  t.same(readdirSync(mount.dir).sort(), ['b', 'c']);
});

t.test('times to the nanosecond, also of a symlink', async (t) => {
  const mount = await KernelMount.start(t);
  writeFileSync(mount.path('file'), '');
  symlinkSync('file', mount.path('link'));
  const times = BigInt64Array.of(1_000_000_001n, 123_456_789n, 4_000_000_002n, 987_654_321n);
  for (const [name, flags] of [
    ['file', 0],
    ['link', 0x100],
  ] as const) {
    t.equal(utimensat(AT_FDCWD, cString(mount.path(name)), times, flags), 0, name);
    const stat = lstatSync(join(mount.dir, name), { bigint: true });
    t.equal(stat.atimeNs, 1_000_000_001_123_456_789n);
    t.equal(stat.mtimeNs, 4_000_000_002_987_654_321n);
    t.equal(lstatSync(mount.path(name), { bigint: true }).mtimeNs, stat.mtimeNs);
  }
});

t.test('special files', async (t) => {
  const mount = await KernelMount.start(t);
  const kinds = { fifo: 0o010644, socket: 0o140600, character: 0o020600, block: 0o060600 };
  for (const [name, mode] of Object.entries(kinds)) {
    const device = name === 'character' || name === 'block' ? 0x123456 : 0;
    t.equal(mknodat(AT_FDCWD, cString(mount.path(name)), mode, device), 0, name);
    t.match(statSync(join(mount.dir, name)), { mode, rdev: device });
    t.match(statSync(mount.path(name)), { mode, rdev: device });
  }
});

t.test('extended attributes, without the image record', async (t) => {
  const mount = await KernelMount.start(t);
  writeFileSync(mount.path('file'), '');
  const run = (command: string, ...args: string[]) =>
    execFileSync(command, args, { encoding: 'latin1', stdio: 'pipe' });
  run('setfattr', '-n', 'user.one', '-v', '0x00ff10', mount.path('file'));
  t.match(run('getfattr', '-e', 'hex', '-n', 'user.one', join(mount.dir, 'file')), 'user.one=0x00ff10');
  run('setfattr', '-n', 'trusted.migratefs', '-v', 'x', join(mount.dir, 'file'));
  run('setfattr', '-n', 'trusted.other', '-v', 'x', join(mount.dir, 'file'));
  const list = run('getfattr', '-m', '-', mount.path('file'));
  t.match(list, 'user.one');
  t.match(list, 'trusted.other');
  t.notMatch(list, 'trusted.migratefs');
  t.throws(() => run('getfattr', '-n', 'trusted.migratefs', mount.path('file')), /No such attribute/);
  t.throws(() => run('setfattr', '-n', 'trusted.migratefs', '-v', 'y', mount.path('file')), /not permitted/);
  t.throws(() => run('setfattr', '-x', 'trusted.migratefs', mount.path('file')), /not permitted/);
  run('setfattr', '-x', 'user.one', mount.path('file'));
  t.throws(() => run('getfattr', '-n', 'user.one', mount.path('file')), /No such attribute/);
});

t.test('statfs tells what the backing file system tells', async (t) => {
  const mount = await KernelMount.start(t);
  const [ours, theirs] = [statfsSync(mount.mountpoint), statfsSync(mount.dir)];
  t.match(ours, { blocks: theirs.blocks, bsize: theirs.bsize, files: theirs.files });
});

t.test('a file stays usable while unlinked or replaced', async (t) => {
  const mount = await KernelMount.start(t);
  const fd = openSync(mount.path('a'), 'w+');
  writeSync(fd, 'before');
  unlinkSync(mount.path('a'));
  t.same(readdirSync(mount.dir), [], 'no hidden file takes its place');
  writeSync(fd, ' after');
  const data = Buffer.alloc(12);
  t.equal(readSync(fd, data, 0, 12, 0), 12);
  t.equal(data.toString(), 'before after');
  closeSync(fd);
  writeFileSync(mount.path('old'), 'old');
  writeFileSync(mount.path('new'), 'new');
  const old = openSync(mount.path('old'), 'r');
  renameSync(mount.path('new'), mount.path('old'));
  t.equal(readFileSync(old, 'utf8'), 'old');
  t.equal(readFileSync(mount.path('old'), 'utf8'), 'new');
  closeSync(old);
});

t.test('a directory of 5,000 entries lists completely, also while entries are removed', async (t) => {
  const mount = await KernelMount.start(t);
  const names = Array.from({ length: 5000 }, (_, i) => `entry-${i}`);
  for (const name of names) writeFileSync(join(mount.dir, name), '');
  t.same(readdirSync(mount.mountpoint).sort(), names.toSorted());
  t.equal(execFileSync('ls', ['-lU', mount.mountpoint], { encoding: 'utf8' }).split('\n').length, 5002);
  execFileSync('find', [mount.mountpoint, '-name', 'entry-*', '-delete']);
  t.same(readdirSync(mount.dir), []);
});

t.test('2,000 files open at once', async (t) => {
  const mount = await KernelMount.start(t);
  const fds = Array.from({ length: 2000 }, (_, i) => openSync(mount.path(`f${i}`), 'wx+'));
  for (const [i, fd] of fds.entries()) writeSync(fd, `file ${i}`);
  for (const fd of fds) closeSync(fd);
  for (const i of [0, 999, 1999]) t.equal(readFileSync(join(mount.dir, `f${i}`), 'utf8'), `file ${i}`);
});

t.test('a change made in the backing directory is seen at the next open', async (t) => {
  const mount = await KernelMount.start(t);
  writeFileSync(mount.path('file'), 'one');
  t.equal(readFileSync(mount.path('file'), 'utf8'), 'one');
  for (const text of ['two', 'six', 'longer']) {
    writeFileSync(join(mount.dir, 'file'), text);
    t.equal(readFileSync(mount.path('file'), 'utf8').slice(0, 3), text.slice(0, 3));
  }
});

t.test('what a user creates is his, and the group follows a set-group-ID directory', async (t) => {
  const mount = await KernelMount.start(t);
  const asUser = (script: string) =>
    execFileSync('setpriv', ['--reuid=1234', '--regid=2345', '--clear-groups', 'sh', '-c', script], {
      stdio: 'pipe',
    });
  mkdirSync(mount.path('open'));
  chmodSync(mount.path('open'), 0o777);
  mkdirSync(mount.path('shared'));
  chownSync(mount.path('shared'), 0, 77);
  chmodSync(mount.path('shared'), 0o2777);
  for (const [dir, gid] of [
    ['open', 2345],
    ['shared', 77],
  ] as const) {
    const at = (name: string) => mount.path(`${dir}/${name}`);
    asUser(`umask 027; cd ${mount.path(dir)}; touch file; mkdir dir; ln -s file link; mkfifo fifo`);
    for (const name of ['file', 'dir', 'link', 'fifo'])
      t.match(lstatSync(at(name)), { uid: 1234, gid }, `${dir}/${name}`);
    t.equal(statSync(at('file')).mode & 0o7777, 0o640, 'the umask is obeyed');
    t.equal(statSync(at('dir')).mode & 0o7777, gid === 77 ? 0o2750 : 0o750);
  }
  writeFileSync(mount.path('private'), '');
  chmodSync(mount.path('private'), 0o600);
  t.throws(() => asUser(`cat ${mount.path('private')}`), /Permission denied/);
  t.throws(() => asUser(`touch ${mount.path('new')}`), /Permission denied/);
});

t.test('a write by an ordinary user drops set-user-ID', async (t) => {
  const mount = await KernelMount.start(t);
  for (const how of ['before', 'after'] as const) {
    const path = mount.path(how);
    writeFileSync(path, 'x');
    if (how === 'before') chmodSync(path, 0o6777);
    const opened = openSync(path, 'r+');
    if (how === 'after') chmodSync(path, 0o6777);
    execFileSync('setpriv', ['--reuid=1234', '--clear-groups', 'sh', '-c', `echo y >> ${path}`]);
    t.equal(statSync(path).mode & 0o7777, 0o777, `set ${how} the open`);
    closeSync(opened);
  }
  const path = mount.path('truncated');
  writeFileSync(path, 'x');
  chmodSync(path, 0o6777);
  execFileSync('setpriv', ['--reuid=1234', '--clear-groups', 'truncate', '-s', '0', path]);
  t.equal(statSync(path).mode & 0o7777, 0o777);
});

t.test('so does one who punches a hole, as he could change a program with it', async (t) => {
  const mount = await KernelMount.start(t);
  const path = mount.path('program');
  writeFileSync(path, Buffer.alloc(8192, 'x'));
  const punch = ['fallocate', '-p', '-o', '0', '-l', '4096', path];
  chmodSync(path, 0o6777);
  execFileSync(punch[0]!, punch.slice(1));
  t.equal(statSync(path).mode & 0o7777, 0o6777, 'by root they stay');
  execFileSync('setpriv', ['--reuid=1234', '--clear-groups', ...punch]);
  t.equal(statSync(path).mode & 0o7777, 0o777);
});

t.test('an access control list is kept and obeyed', async (t) => {
  const mount = await KernelMount.start(t);
  writeFileSync(mount.path('file'), 'x');
  chmodSync(mount.path('file'), 0o600);
  const read = (uid: number) =>
    execFileSync('setpriv', [`--reuid=${uid}`, '--regid=2345', '--clear-groups', 'cat', mount.path('file')], {
      stdio: 'pipe',
    }).toString();
  execFileSync('setfacl', ['-m', 'u:1234:r', mount.path('file')]);
  t.equal(read(1234), 'x');
  t.throws(() => read(1235), /Permission denied/);
  mkdirSync(mount.path('dir'));
  execFileSync('setfacl', ['-d', '-m', 'u:1234:rw', mount.path('dir')]);
  execFileSync('sh', ['-c', `umask 077; touch ${mount.path('dir/file')}`]);
  t.match(
    execFileSync('getfacl', ['-n', join(mount.dir, 'dir/file')], { encoding: 'utf8', stdio: 'pipe' }),
    /user:1234:rw/,
  );
});

t.test('errors keep their names', async (t) => {
  const mount = await KernelMount.start(t);
  writeFileSync(mount.path('file'), '');
  t.throws(() => readFileSync(mount.path('none')), { code: 'ENOENT' });
  t.throws(() => readFileSync(mount.path('file/x')), { code: 'ENOTDIR' });
  t.throws(() => openSync(mount.path('file'), 'wx'), { code: 'EEXIST' });
  t.throws(() => unlinkSync(mount.path('none')), { code: 'ENOENT' });
  t.throws(() => rmdirSync(mount.path('file')), { code: 'ENOTDIR' });
  symlinkSync('loop', mount.path('loop'));
  t.throws(() => readFileSync(mount.path('loop')), { code: 'ELOOP' });
});

t.test('where the backing file system has no ACLs, the mode decides', async (t) => {
  const mount = await KernelMount.start(t);
  mkdirSync(join(mount.dir, 'disk'));
  execFileSync('mount', ['-t', 'ramfs', 'mfs-test', join(mount.dir, 'disk')]);
  t.teardown(() => execFileSync('umount', ['-l', join(mount.dir, 'disk')]));
  const path = mount.path('disk/file');
  writeFileSync(path, 'x');
  // Neither as the owner nor of the group.
  const read = (mode: number): string => {
    chmodSync(path, mode);
    const as = ['--reuid=1234', '--regid=2345', '--clear-groups'];
    return execFileSync('setpriv', [...as, 'cat', path], { stdio: 'pipe' }).toString();
  };
  t.equal(read(0o664), 'x');
  t.throws(() => read(0o660), /Permission denied/);
});
