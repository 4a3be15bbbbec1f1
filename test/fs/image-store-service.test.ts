import { execFileSync } from 'node:child_process';
import {
  closeSync,
  constants,
  existsSync,
  fstatSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import type { Test } from 'tap';
import t from 'tap';
import type { ImageRecord } from '../../src/fs/image-record.js';
import { readRecord, writeRecord } from '../../src/fs/image-record.js';
import { ImageRegistry } from '../../src/fs/image-registry.js';
import { ImageStoreService } from '../../src/fs/image-store-service.js';
import { ImageMode, ImageTable } from '../../src/fs/image-table.js';
import { bytes, MiB } from '../../src/leaves/units.js';
import { smallDisk } from '../support/small-disk.js';

const REPLICA: ImageRecord = {
  role: 'replica',
  generation: 3,
  migration: 'm-1',
  peer: '10.0.0.1:7071',
  inode: 0,
};
const attributes = (size: number) => ({ size: bytes(size), mode: 0o640, uid: 7, gid: 8, record: REPLICA });

const setUp = (test: Test) => {
  const dir = mkdtempSync('/tmp/mfs-A-store-');
  const root = openSync(dir, constants.O_RDONLY | constants.O_DIRECTORY);
  const table = new ImageTable();
  const damaged: unknown[] = [];
  const registry = new ImageRegistry(table, (error) => damaged.push(error));
  const store = new ImageStoreService(root, table, registry, () => {});
  test.teardown(() => {
    store.close();
    closeSync(root);
    rmSync(dir, { recursive: true });
  });
  return { dir, table, registry, store, damaged };
};

const openDescriptors = () => readdirSync('/proc/self/fd').length;

t.test('a name that is not inside the exported directory is refused and nothing is opened', async (t) => {
  const { dir, store } = setUp(t);
  symlinkSync('/etc', join(dir, 'out'));
  symlinkSync('..', join(dir, 'up'));
  symlinkSync('/etc/passwd', join(dir, 'file'));
  mkdirSync(join(dir, 'directory'));
  execFileSync('mkfifo', [join(dir, 'fifo')]);
  const before = openDescriptors();
  for (const name of [
    '',
    '/etc/passwd',
    '../x',
    'a/../b',
    'a//b',
    './a',
    'a/',
    'a\0b',
    'out/passwd',
    'up/x',
    'file',
    'directory',
    'fifo',
    'x'.repeat(300),
  ]) {
    t.throws(() => store.pin(name), { code: 'INVALID_ARGUMENT' }, JSON.stringify(name.slice(0, 20)));
  }
  for (const name of ['', '/tmp/mfs-A-x', '../x', 'out/new', 'up/new', 'out/deep/new'])
    t.throws(() => store.createReplica(name, attributes(1)), { code: 'INVALID_ARGUMENT' }, `create ${name}`);
  t.throws(() => store.pin('missing'), { code: 'NOT_FOUND' });
  t.throws(() => store.pin('missing/deep'), { code: 'NOT_FOUND' });
  t.equal(openDescriptors(), before, 'no descriptor is left open');
});

t.test('pinning follows a symlink that stays inside, and pins each file once', async (t) => {
  const { dir, store, registry } = setUp(t);
  mkdirSync(join(dir, 'sub'));
  writeFileSync(join(dir, 'sub/image'), Buffer.alloc(5000, 1));
  symlinkSync('sub/image', join(dir, 'alias'));
  linkSync(join(dir, 'sub/image'), join(dir, 'hard'));
  const before = openDescriptors();
  const pinned = store.pin('alias');
  const stat = statSync(join(dir, 'sub/image'));
  t.match(pinned, { size: 5000, allocated: stat.blocks * 512, uid: stat.uid, record: null });
  t.equal(registry.isPinned((stat.dev >> 8) * 2 ** 32 + (stat.dev & 255), stat.ino), true);
  for (const name of ['alias', 'sub/image', 'hard'])
    t.throws(() => store.pin(name), { code: 'FAILED_PRECONDITION' }, name);
  t.throws(
    () => store.release(pinned.slot, true),
    { code: 'FAILED_PRECONDITION' },
    'a source image is never removed',
  );
  t.ok(existsSync(join(dir, 'sub/image')));
  t.notOk(registry.anyPinned);
  t.equal(openDescriptors(), before);
  store.release(store.pin('sub/image').slot, false);
});

t.test(
  'a replica is created fenced with its record, and removed with the directories made for it',
  async (t) => {
    const { dir, store, table } = setUp(t);
    mkdirSync(join(dir, 'a'));
    const before = openDescriptors();
    const replica = store.createReplica('a/b/c/image', attributes(64 * MiB));
    t.equal(table.mode(replica.slot), ImageMode.fenced);
    t.equal(table.uncached(replica.slot), true);
    const stat = statSync(join(dir, 'a/b/c/image'));
    t.match(stat, { size: 64 * MiB, uid: 7, gid: 8, mode: 0o100640 });
    t.match(readRecord(replica.fd), { ...REPLICA, inode: stat.ino });
    t.throws(() => store.createReplica('a/b/c/image', attributes(1)), { code: 'ALREADY_EXISTS' });
    t.equal(statSync(join(dir, 'a/b/c/image')).size, 64 * MiB, 'nothing was touched');
    store.release(replica.slot, true);
    t.same(readdirSync(dir), ['a'], 'what was there before stays');
    t.same(readdirSync(join(dir, 'a')), []);
    t.equal(openDescriptors(), before);
  },
);

t.test('G4: a replica that is removed takes no space, whoever remembers it', async (t) => {
  const { dir, store } = setUp(t);
  const replica = store.createReplica('image', attributes(8 * MiB));
  writeSync(replica.fd, Buffer.alloc(4 * MiB, 'copied'), 0, 4 * MiB, 0);
  // As the kernel does for a name that was looked up.
  const remembered = openSync(join(dir, 'image'), 'r');
  store.release(replica.slot, true);
  t.notOk(existsSync(join(dir, 'image')));
  const { nlink, size, blocks } = fstatSync(remembered);
  t.same({ nlink, size }, { nlink: 0, size: 0 });
  t.ok(blocks < 64, 'an attribute at most');
  closeSync(remembered);
  const other = store.createReplica('image', attributes(MiB));
  linkSync(join(dir, 'image'), join(dir, 'kept'));
  store.release(other.slot, true);
  t.equal(statSync(join(dir, 'kept')).size, MiB, 'what has another name is not emptied');
});

t.test('a replica that cannot be unlinked keeps what it holds', async (t) => {
  const { dir, store } = setUp(t);
  mkdirSync(join(dir, 'a'));
  await smallDisk(t, join(dir, 'a'), 4 * MiB);
  const replica = store.createReplica('a/image', attributes(MiB));
  execFileSync('chattr', ['+i', join(dir, 'a')]);
  t.throws(() => store.release(replica.slot, true), /cannot remove a replica: EPERM/);
  t.equal(statSync(join(dir, 'a/image')).size, MiB);
});

t.test('a replica that cannot be removed is let go of all the same', async (t) => {
  const { dir, store, registry } = setUp(t);
  const before = openDescriptors();
  const replica = store.createReplica('a/image', attributes(1));
  renameSync(join(dir, 'a/image'), join(dir, 'a/moved'));
  t.throws(() => store.release(replica.slot, true), { code: 'FAILED_PRECONDITION' });
  t.ok(existsSync(join(dir, 'a/moved')));
  t.notOk(registry.anyPinned);
  t.equal(openDescriptors(), before);
  store.release(store.pin('a/moved').slot, false);
});

t.test('an image that cannot be described is not pinned', async (t) => {
  const dir = mkdtempSync('/dev/shm/mfs-F2-');
  const root = openSync(dir, constants.O_RDONLY | constants.O_DIRECTORY);
  t.teardown(() => {
    closeSync(root);
    rmSync(dir, { recursive: true });
  });
  const table = new ImageTable();
  const registry = new ImageRegistry(table, () => {});
  const store = new ImageStoreService(root, table, registry, () => {});
  execFileSync('truncate', ['-s', `${2 ** 60}`, join(dir, 'huge')]);
  const before = openDescriptors();
  t.throws(() => store.pin('huge'));
  t.notOk(registry.anyPinned);
  t.equal(openDescriptors(), before);
});

t.test('a replica that cannot be created leaves nothing', async (t) => {
  const { dir, store } = setUp(t);
  const before = openDescriptors();
  t.throws(() => store.createReplica('new/dir/image', attributes(2 ** 53 - 1)), {
    code: 'RESOURCE_EXHAUSTED',
  });
  t.same(readdirSync(dir), []);
  writeFileSync(join(dir, 'file'), '');
  t.throws(() => store.createReplica('file/image', attributes(1)), { code: 'NOT_FOUND' });
  t.equal(openDescriptors(), before);
});

t.test('directories made for a replica stay when something else has been put there', async (t) => {
  const { dir, store } = setUp(t);
  const replica = store.createReplica('a/b/image', attributes(1));
  writeFileSync(join(dir, 'a/other'), '');
  store.release(replica.slot, true);
  t.same(readdirSync(join(dir, 'a')), ['other']);
});

t.test('the first open takes the mode from the record', async (t) => {
  const { dir, store, table, damaged } = setUp(t);
  const modeOf = (name: string): string => {
    const { slot } = store.pin(name);
    const mode = `${table.mode(slot)}${table.uncached(slot) ? ' uncached' : ''}`;
    store.release(slot, false);
    return mode;
  };
  const path = join(dir, 'image');
  writeFileSync(path, 'x');
  t.equal(modeOf('image'), `${ImageMode.idle}`);
  const fd = openSync(path, 'r+');
  for (const [role, expected] of [
    ['owner', `${ImageMode.idle}`],
    ['fenced', `${ImageMode.fenced}`],
    ['replica', `${ImageMode.fenced} uncached`],
  ] as const) {
    writeRecord(fd, { ...REPLICA, role });
    t.equal(modeOf('image'), expected, role);
  }
  execFileSync('cp', ['--preserve=all', path, `${path}-copy`]);
  t.equal(modeOf('image-copy'), `${ImageMode.idle}`, 'a record copied with the file does not count');
  execFileSync('setfattr', ['-n', 'trusted.migratefs', '-v', '{"role":"owner"', path]);
  t.throws(() => store.pin('image'), { code: 'DATA_LOSS' });
  t.throws(() => readRecord(fd), { code: 'DATA_LOSS' });
  t.equal(damaged.length, 0);
  closeSync(fd);
});

t.test('what is free is that of the file system on which an image would be made', async (t) => {
  const { dir, store } = setUp(t);
  const large = join(dir, 'large');
  await smallDisk(t, large, 8 * MiB);
  await smallDisk(t, join(large, 'small'), MiB);
  const names = [
    'image',
    'large/image',
    'large/new/folder/image',
    'large/small/image',
    'large/small/new/image',
  ];
  const [root, ...below] = store.freeSpace(names);
  t.ok(root!.free > 8 * MiB);
  t.same(
    below.map(({ free }) => free),
    [8 * MiB, 8 * MiB, MiB, MiB],
  );
  const devices = below.map(({ device }) => device);
  t.equal(new Set([root!.device, ...devices]).size, 3);
  t.equal(devices[0], devices[1]);
  t.equal(devices[2], devices[3]);
  t.throws(() => store.freeSpace(['../image']), { code: 'INVALID_ARGUMENT' });
});
