import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  closeSync,
  constants,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  openSync,
  readFileSync,
  readSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import koffi from 'koffi';
import t from 'tap';
import { createBackingCalls } from '../../src/fs/backing-calls.js';
import { Errno } from '../../src/fs/errno.js';
import { ImageIo } from '../../src/fs/image-io.js';
import { GraceCounters, ImageTable } from '../../src/fs/image-table.js';
import { alignedBytes } from '../../src/fs/kernel/aligned-memory.js';
import { DataOperations, dataRequest } from '../../src/fs/kernel/data-operations.js';
import {
  HANDLE_ODIRECT,
  HANDLE_SYNCS,
  HandleAllocator,
  HandleTable,
} from '../../src/fs/kernel/handle-table.js';
import { Opcode } from '../../src/fs/kernel/protocol.js';
import { ReplyBuffer } from '../../src/fs/kernel/reply.js';
import {
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  FALLOC_FL_ZERO_RANGE,
  fallocate,
  lseek,
  SEEK_DATA,
  SEEK_HOLE,
} from '../../src/fs/libc.js';
import { GiB, KiB, MiB } from '../../src/leaves/units.js';
import { FileUser } from '../support/file-user.js';
import { KernelMount } from '../support/kernel-mount.js';
import { scratchDir } from '../support/scratch.js';

const fio = (directory: string, ...options: string[]) =>
  execFileSync(
    'fio',
    [
      '--name=kernel-data',
      '--verify_state_save=0',
      `--directory=${directory}`,
      '--size=8m',
      '--verify=crc32c',
      '--verify_fatal=1',
      ...options,
    ],
    { stdio: 'pipe', timeout: 60_000 },
  );

/** A request that is performed after its caller was killed and its file closed. */
t.test('a request of a handle that is free by then is answered, and the thread goes on', async (t) => {
  const table = new ImageTable();
  const handles = new HandleAllocator(new HandleTable());
  const operations = new DataOperations({
    table,
    handles: handles.table,
    io: new ImageIo(table, new GraceCounters(), 0, createBackingCalls(), () => {}),
    reply: new ReplyBuffer(4 * KiB),
    route: () => t.fail('nothing is routed'),
  });
  const handle = handles.allocate(openSync('/dev/null', 'r'), 0);
  closeSync(handles.table.fd(handle));
  handles.free(handle);
  const request = dataRequest(alignedBytes(4 * KiB, 0), -1);
  for (const [opcode, word] of [
    [Opcode.READ, 10],
    [Opcode.FSYNC, 10],
    [Opcode.LSEEK, 10],
    [Opcode.GETATTR, 12],
  ] as const) {
    request.words.fill(0);
    request.words[1] = opcode;
    request.words[word] = handle;
    t.equal(operations.serve(request), -Errno.EBADF, `opcode ${opcode}`);
  }
});

t.test(
  'G1: what is written durably through another descriptor than the handle’s is flushed there',
  async (t) => {
    const table = new ImageTable();
    const handles = new HandleAllocator(new HandleTable());
    const fds: number[] = [];
    const io = {
      writeDurably: (...args: Parameters<ImageIo['writeDurably']>): number => {
        const [, fd, , , , , flush] = args;
        fds.push(fd);
        if (fds.length === 1) return -Errno.EINVAL;
        closeSync(fd);
        return flush();
      },
    };
    const operations = new DataOperations({
      table,
      handles: handles.table,
      io: io as unknown as ImageIo,
      reply: new ReplyBuffer(4 * KiB),
      route: () => t.fail('nothing is routed'),
    });
    const path = join(scratchDir(t, 'file'), 'image');
    const handle = handles.allocate(openSync(path, 'w+'), 0);
    t.teardown(() => closeSync(handles.table.fd(handle)));
    handles.table.setKinds(handle, HANDLE_ODIRECT | HANDLE_SYNCS);
    const request = dataRequest(alignedBytes(8 * KiB, 0), -1);
    request.words[1] = Opcode.WRITE;
    request.words[10] = handle;
    request.words[14] = 10;
    request.words[18] = constants.O_RDWR | constants.O_DSYNC;
    // The descriptor was closed: whoever flushes it is told so.
    t.equal(operations.serve(request), -Errno.EBADF);
    t.equal(fds.length, 2);
    t.equal(fds[0], handles.table.fd(handle));
  },
);

t.test('a process that is killed while it waits for its flush takes nothing along', async (t) => {
  // Every flush goes to a thread of its own then, which takes a while to start.
  const mount = await KernelMount.start(t, { workers: 1 });
  writeFileSync(mount.path('image'), 'before');
  const user = await FileUser.start(t, mount.path('image'));
  const inFlush = (): boolean =>
    readFileSync(`/proc/${user.pid}/syscall`, 'utf8').startsWith(`${process.arch === 'x64' ? 74 : 82} `);
  let synced = false;
  void user.sync().then(() => {
    synced = true;
  });
  // Or it is through already.
  while (!(synced || inFlush())) await new Promise(setImmediate);
  user.kill('SIGKILL');
  await user.ended;
  const fd = openSync(mount.path('image'), 'r+');
  writeSync(fd, 'after', 0);
  fsyncSync(fd);
  closeSync(fd);
  t.equal(readFileSync(join(mount.dir, 'image'), 'utf8'), 'aftere');
  t.ok(mount.mounted);
});

t.test('O_DIRECT passes aligned data of every size, and refuses what the backing file refuses', async (t) => {
  const mount = await KernelMount.start(t);
  const fd = openSync(mount.path('image'), constants.O_RDWR | constants.O_CREAT | constants.O_DIRECT, 0o600);
  const buffer = alignedBytes(4 * MiB, 0);
  buffer.set(randomBytes(4 * MiB));
  let offset = 0;
  const sizes = [4 * KiB, 8 * KiB, 128 * KiB, MiB, MiB + 4 * KiB, 4 * MiB];
  for (const size of sizes) {
    t.equal(writeSync(fd, buffer, 0, size, offset), size);
    offset += size;
  }
  const back = alignedBytes(4 * MiB, 0);
  offset = 0;
  for (const size of sizes) {
    t.equal(readSync(fd, back, 0, size, offset), size);
    t.equal(Buffer.compare(back.subarray(0, size), buffer.subarray(0, size)), 0, `${size} bytes`);
    offset += size;
  }
  t.equal(readSync(fd, back, 0, MiB, offset - 4 * KiB), 4 * KiB, 'short read at the end');
  t.throws(() => writeSync(fd, buffer, 0, 100, 0), { code: 'EINVAL' });
  closeSync(fd);
});

t.test('offsets beyond 4 GiB, holes and their edges are exact', async (t) => {
  const mount = await KernelMount.start(t);
  const fd = openSync(mount.path('image'), 'w+');
  const data = randomBytes(64 * KiB);
  const places = [0, 4 * GiB - 32 * KiB, 4 * GiB + 8 * MiB, 2 ** 42];
  for (const place of places) t.equal(writeSync(fd, data, 0, data.length, place), data.length);
  fsyncSync(fd);
  t.equal(fstatSync(fd).size, 2 ** 42 + 64 * KiB);
  const back = Buffer.alloc(64 * KiB);
  for (const place of places) {
    readSync(fd, back, 0, back.length, place);
    t.equal(back.compare(data), 0, `at ${place}`);
  }
  t.ok(fstatSync(fd).blocks * 512 < MiB, 'it is sparse');
  t.equal(lseek(fd, 64 * KiB, SEEK_DATA), 4 * GiB - 32 * KiB);
  t.equal(lseek(fd, 0, SEEK_HOLE), 64 * KiB);
  t.equal(lseek(fd, 4 * GiB + 32 * KiB, SEEK_DATA), 4 * GiB + 8 * MiB);
  t.equal(lseek(fd, 2 ** 42 + 64 * KiB, SEEK_DATA), -6, 'ENXIO at the end');
  closeSync(fd);
});

t.test('fallocate preallocates, punches holes and zeroes', async (t) => {
  const mount = await KernelMount.start(t);
  const fd = openSync(mount.path('image'), 'w+');
  t.equal(fallocate(fd, 0, 0, 4 * MiB), 0);
  t.match(fstatSync(fd), { size: 4 * MiB });
  t.ok(fstatSync(fd).blocks * 512 >= 4 * MiB);
  writeSync(fd, Buffer.alloc(4 * MiB, 7), 0, 4 * MiB, 0);
  t.equal(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, MiB, 2 * MiB), 0);
  t.equal(lseek(fd, 0, SEEK_HOLE), MiB);
  t.equal(lseek(fd, MiB, SEEK_DATA), 3 * MiB);
  t.equal(fallocate(fd, FALLOC_FL_ZERO_RANGE, 3 * MiB, 100), 0);
  t.equal(fallocate(fd, FALLOC_FL_KEEP_SIZE, 8 * MiB, MiB), 0);
  const expected = Buffer.alloc(4 * MiB, 7).fill(0, MiB, 3 * MiB + 100);
  t.equal(readFileSync(mount.path('image')).compare(expected), 0);
  t.equal(readFileSync(join(mount.dir, 'image')).compare(expected), 0);
  closeSync(fd);
});

t.test('truncation, by name and by handle, and O_TRUNC', async (t) => {
  const mount = await KernelMount.start(t);
  const path = mount.path('image');
  writeFileSync(path, 'x'.repeat(10_000));
  truncateSync(path, 5000);
  t.equal(statSync(join(mount.dir, 'image')).size, 5000);
  const fd = openSync(path, 'r+');
  ftruncateSync(fd, 8000);
  t.equal(readFileSync(path, 'latin1'), 'x'.repeat(5000) + '\0'.repeat(3000));
  closeSync(openSync(path, 'w'));
  t.equal(fstatSync(fd).size, 0);
  closeSync(fd);
});

t.test('O_APPEND appends, with two writers too', async (t) => {
  const mount = await KernelMount.start(t);
  const [a, b] = [openSync(mount.path('log'), 'a'), openSync(mount.path('log'), 'a')];
  for (let i = 0; i < 100; i++) writeSync(i % 2 === 0 ? a : b, `${i},`);
  closeSync(a);
  closeSync(b);
  t.equal(readFileSync(mount.path('log'), 'utf8'), Array.from({ length: 100 }, (_, i) => `${i},`).join(''));
});

t.test('concurrent writers, buffered and direct, read back what they wrote', async (t) => {
  const mount = await KernelMount.start(t, { workers: 3 });
  const mixed = ['--rw=randwrite', '--bssplit=4k/50:64k/30:256k/20', '--numjobs=4'];
  fio(mount.mountpoint, ...mixed, '--direct=0');
  fio(mount.mountpoint, ...mixed, '--direct=1', '--ioengine=libaio', '--iodepth=8');
  // One file, direct and buffered jobs beside each other, each in its own part.
  fio(
    mount.mountpoint,
    '--filename=one',
    '--rw=randwrite',
    '--bs=4k',
    '--numjobs=4',
    '--offset_increment=8m',
    '--direct=1',
  );
  t.doesNotThrow(
    () =>
      fio(
        mount.dir,
        '--filename=one',
        '--rw=randwrite',
        '--bs=4k',
        '--numjobs=4',
        '--offset_increment=8m',
        '--verify_only',
      ),
    'every block is right in the backing file',
  );
});

t.test('a shared mapping is written back', async (t) => {
  const mount = await KernelMount.start(t);
  for (const direct of ['0', '1']) {
    fio(
      mount.mountpoint,
      '--filename=mapped',
      '--ioengine=mmap',
      '--rw=randwrite',
      '--bs=4k',
      '--end_fsync=1',
      `--direct=${direct}`,
    );
    t.doesNotThrow(
      () => fio(mount.dir, '--filename=mapped', '--rw=randwrite', '--bs=4k', '--verify_only'),
      `every block is right in the backing file, direct=${direct}`,
    );
  }
});

t.test('a mapping of a file opened O_DIRECT whose end is not aligned', async (t) => {
  const mount = await KernelMount.start(t);
  writeFileSync(mount.path('odd'), Buffer.alloc(5000, 1));
  const libc = koffi.load('libc.so.6');
  const mmap = libc.func(
    'uintptr_t mmap(void *at, size_t length, int protection, int flags, int fd, int64_t offset)',
  );
  const memcpy = libc.func('void memcpy(uintptr_t to, const void *from, size_t length)');
  const munmap = libc.func('int munmap(uintptr_t at, size_t length)');
  const fd = openSync(mount.path('odd'), constants.O_RDWR | constants.O_DIRECT);
  const [READ_WRITE, SHARED] = [3, 1];
  const address = mmap(null, 5000, READ_WRITE, SHARED, fd, 0) as number;
  memcpy(address + 4990, Buffer.from('0123456789'), 10);
  munmap(address, 5000);
  fsyncSync(fd);
  closeSync(fd);
  t.equal(readFileSync(join(mount.dir, 'odd'), 'latin1').slice(4990), '0123456789');
});

t.test(
  'who takes O_DIRECT off an open file, as dd does for the rest, writes and reads any length',
  async (t) => {
    const mount = await KernelMount.start(t);
    const content = randomBytes(1_000_001);
    writeFileSync(join(mount.dir, 'from'), content);
    execFileSync('dd', [`if=${mount.dir}/from`, `of=${mount.path('to')}`, 'bs=64K', 'oflag=direct'], {
      stdio: 'pipe',
    });
    t.ok(readFileSync(join(mount.dir, 'to')).equals(content));

    const fcntl = koffi.load('libc.so.6').func('int fcntl(int fd, int command, ...)');
    const F_SETFL = 4;
    const fd = openSync(mount.path('to'), constants.O_RDWR | constants.O_DIRECT);
    const back = Buffer.alloc(10);
    t.throws(() => readSync(fd, back, 0, 10, 7), { code: 'EINVAL' }, 'with it, only what is aligned');
    t.equal(fcntl(fd, F_SETFL, 'int', constants.O_RDWR), 0);
    t.equal(readSync(fd, back, 0, 10, 7), 10);
    t.ok(back.equals(content.subarray(7, 17)));
    t.equal(writeSync(fd, 'unaligned', 100), 9);
    t.equal(readFileSync(join(mount.dir, 'to')).toString('latin1', 100, 109), 'unaligned');
    closeSync(fd);
  },
);

t.test('many handles of one file see one content', async (t) => {
  const mount = await KernelMount.start(t);
  writeFileSync(mount.path('image'), Buffer.alloc(MiB));
  const fds = Array.from({ length: 50 }, () => openSync(mount.path('image'), 'r+'));
  for (const [i, fd] of fds.entries()) writeSync(fd, `${String(i).padStart(3, '0')}`, i * 1000);
  for (const fd of fds.slice(1)) closeSync(fd);
  const back = Buffer.alloc(3);
  for (const i of [0, 1, 49]) {
    readSync(fds[0]!, back, 0, 3, i * 1000);
    t.equal(back.toString(), String(i).padStart(3, '0'));
  }
  closeSync(fds[0]!);
});
