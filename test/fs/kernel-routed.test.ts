import {
  closeSync,
  constants,
  fsyncSync,
  ftruncateSync,
  linkSync,
  openSync,
  readFileSync,
  renameSync,
  statSync,
  truncateSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import koffi from 'koffi';
import t from 'tap';
import { alignedBytes } from '../../src/fs/kernel/aligned-memory.js';
import { FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, fallocate } from '../../src/fs/libc.js';
import { KernelMount } from '../support/kernel-mount.js';

t.test('every change to a routed image goes through the replica thread, and is answered', async (t) => {
  const mount = await KernelMount.start(t);
  const path = mount.path('image');
  writeFileSync(path, Buffer.alloc(64 * 1024, 1));
  const fd = openSync(path, 'r+');
  t.equal(await mount.tell('route image'), 'routed');
  t.equal(writeSync(fd, 'routed', 100), 6);
  t.equal(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 8192, 4096), 0);
  fsyncSync(fd);
  ftruncateSync(fd, 32 * 1024);
  truncateSync(path, 30_000);
  const direct = openSync(path, constants.O_RDWR | constants.O_DIRECT);
  const block = alignedBytes(4096, 0).fill(9);
  t.equal(writeSync(direct, block, 0, 4096, 4096), 4096, 'O_DIRECT: the payload handed over is aligned');
  closeSync(direct);
  t.same(JSON.parse(await mount.tell('counts')), { write: 2, fallocate: 1, fsync: 1, truncate: 2 });
  const content = readFileSync(join(mount.dir, 'image'));
  t.equal(content.length, 30_000);
  t.equal(content.toString('latin1', 100, 106), 'routed');
  t.equal(content[4096], 9);
  t.equal(content[8192], 0);
  closeSync(openSync(path, 'w'));
  t.equal(statSync(path).size, 0, 'O_TRUNC');
  t.equal(await mount.tell('idle image'), 'idle');
  writeSync(fd, 'idle', 0);
  t.match(JSON.parse(await mount.tell('counts')), { write: 2, truncate: 3 });
  closeSync(fd);
});

t.test(
  'a mapping of a routed image opened O_DIRECT is written back although its end is not aligned',
  async (t) => {
    const mount = await KernelMount.start(t);
    writeFileSync(mount.path('odd'), Buffer.alloc(5000, 1));
    const libc = koffi.load('libc.so.6');
    const mmap = libc.func(
      'uintptr_t mmap(void *at, size_t length, int protection, int flags, int fd, int64_t offset)',
    );
    const memcpy = libc.func('void memcpy(uintptr_t to, const void *from, size_t length)');
    const munmap = libc.func('int munmap(uintptr_t at, size_t length)');
    const fd = openSync(mount.path('odd'), constants.O_RDWR | constants.O_DIRECT);
    await mount.tell('route odd');
    const [READ_WRITE, SHARED] = [3, 1];
    const address = mmap(null, 5000, READ_WRITE, SHARED, fd, 0) as number;
    memcpy(address + 4990, Buffer.from('0123456789'), 10);
    munmap(address, 5000);
    fsyncSync(fd);
    closeSync(fd);
    t.match(JSON.parse(await mount.tell('counts')), { write: 1 });
    t.equal(readFileSync(join(mount.dir, 'odd'), 'latin1').slice(4990), '0123456789');
  },
);

t.test('a routed truncation takes the times along that came with it', async (t) => {
  const mount = await KernelMount.start(t);
  writeFileSync(mount.path('image'), 'x'.repeat(100));
  await mount.tell('route image');
  truncateSync(mount.path('image'), 10);
  utimesSync(mount.path('image'), 1, 2);
  t.match(statSync(join(mount.dir, 'image')), { size: 10, mtimeMs: 2000 });
});

t.test('an image that migrates keeps its name', async (t) => {
  const mount = await KernelMount.start(t);
  writeFileSync(mount.path('image'), 'x');
  writeFileSync(mount.path('other'), 'y');
  linkSync(mount.path('image'), mount.path('second-name'));
  await mount.tell('route image');
  t.throws(() => unlinkSync(mount.path('image')), { code: 'EBUSY' });
  t.throws(() => unlinkSync(mount.path('second-name')), { code: 'EBUSY' });
  t.throws(() => renameSync(mount.path('image'), mount.path('new')), { code: 'EBUSY' });
  t.throws(() => renameSync(mount.path('other'), mount.path('image')), { code: 'EBUSY' });
  t.match(await mount.tell('route image'), /^error FAILED_PRECONDITION .*migrating already/);
  t.match(await mount.tell('route none'), /^error NOT_FOUND/);
  t.match(await mount.tell('route ../image'), /^error INVALID_ARGUMENT/);
  await mount.tell('idle image');
  renameSync(mount.path('image'), mount.path('new'));
  unlinkSync(mount.path('new'));
});

t.test('a fenced image opens read-write, reads, and refuses every change', async (t) => {
  const mount = await KernelMount.start(t);
  writeFileSync(mount.path('image'), 'owned');
  await mount.tell('route image');
  t.equal(await mount.tell('fence image'), 'fenced');
  const fd = openSync(mount.path('image'), 'r+');
  t.throws(() => writeSync(fd, 'x'), { code: 'EROFS' });
  t.throws(() => ftruncateSync(fd, 0), { code: 'EROFS' });
  t.equal(fallocate(fd, 0, 0, 4096), -30);
  t.throws(() => openSync(mount.path('image'), 'w'), { code: 'EROFS' });
  fsyncSync(fd);
  t.equal(readFileSync(mount.path('image'), 'utf8'), 'owned');
  closeSync(fd);
});
