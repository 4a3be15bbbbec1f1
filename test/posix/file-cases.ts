/** Cases about open files: flags, contents, holes, locks. */
import koffi from 'koffi';
import { SharedMapping } from './libc.js';
import {
  type Cases,
  O_APPEND,
  O_CREAT,
  O_DIRECT,
  O_DIRECTORY,
  O_DSYNC,
  O_EXCL,
  O_NOATIME,
  O_NOFOLLOW,
  O_PATH,
  O_RDONLY,
  O_RDWR,
  O_SYNC,
  O_TMPFILE,
  O_TRUNC,
  O_WRONLY,
  SEEK_DATA,
  SEEK_HOLE,
} from './workbench.js';

const KIB = 1024;
const MIB = 1024 * 1024;
const KEEP_SIZE = 1;
const PUNCH_HOLE = 2;
const COLLAPSE_RANGE = 8;
const ZERO_RANGE = 16;
const INSERT_RANGE = 32;
const LOCK_SH = 1;
const LOCK_EX = 2;
const LOCK_NB = 4;
const LOCK_UN = 8;
const F_SETLK = 6;
const F_GETLK = 5;
const F_OFD_SETLK = 37;

/** A buffer of `length` bytes that starts at a page, as O_DIRECT asks for. */
const aligned = (length: number, fill: number): Buffer => {
  const PAGE = 4096;
  const room = Buffer.from(new ArrayBuffer(length + PAGE));
  const address = Number(BigInt(koffi.address(room)) % BigInt(PAGE));
  return room.subarray((PAGE - address) % PAGE, ((PAGE - address) % PAGE) + length).fill(fill);
};

export const fileCases: Cases = {
  'exclusive creation': (w) => {
    w.open('new', O_RDWR | O_CREAT | O_EXCL);
    w.open('new', O_RDWR | O_CREAT | O_EXCL);
    w.mkdir('dir');
    w.open('dir', O_RDWR | O_CREAT | O_EXCL);
  },
  'creation and its modes': (w) => {
    for (const mode of [0o777, 0o644, 0o600, 0o4755, 0o2755, 0o1644, 0o000]) {
      const fd = w.open(`f${mode}`, O_RDWR | O_CREAT, mode);
      w.pwrite(fd, 'x', 0);
      w.stat(`f${mode}`);
    }
  },
  'the process mask': (w) => {
    const before = process.umask(0o077);
    w.make('masked', '', 0o777);
    w.mkdir('masked-dir', 0o777);
    process.umask(0);
    w.make('unmasked', '', 0o777);
    w.mkdir('unmasked-dir', 0o777);
    process.umask(before);
    w.tree();
  },
  'descriptors of one direction': (w) => {
    w.make('file', 'contents');
    const reader = w.open('file', O_RDONLY);
    w.pwrite(reader, 'x', 0);
    w.ftruncate(reader, 0);
    w.fallocate(reader, 0, 0, 10);
    const writer = w.open('file', O_WRONLY);
    w.pread(writer, 4, 0);
    w.pwrite(writer, 'CON', 0);
    w.contents('file');
    const path = w.open('file', O_PATH);
    w.pread(path, 4, 0);
    w.fchmod(path, 0o600);
  },
  'emptied when opened': (w) => {
    w.make('file', 'contents', 0o640);
    const keeper = w.open('file');
    w.open('file', O_WRONLY | O_TRUNC);
    w.pread(keeper, 10, 0);
    w.stat('file');
    w.pwrite(keeper, 'again', 3);
    w.contents('file');
    w.open('file', O_RDWR | O_CREAT | O_TRUNC);
    w.contents('file');
  },
  'appending through two descriptors': (w) => {
    const a = w.open('log', O_WRONLY | O_CREAT | O_APPEND);
    const b = w.open('log', O_WRONLY | O_APPEND);
    for (let i = 0; i < 20; i++) w.write(i % 2 === 0 ? a : b, `line ${i}\n`);
    w.contents('log');
    w.truncate('log', 5);
    w.write(a, 'end');
    w.lseek(a, 0, 0);
    w.write(a, '.');
    w.contents('log');
  },
  'written through, read past the cache': (w) => {
    for (const [name, flag] of Object.entries({ O_SYNC, O_DSYNC, O_NOATIME })) {
      const fd = w.open(name, O_RDWR | O_CREAT | flag);
      w.pwrite(fd, 'x'.repeat(10_000), 5);
      w.pread(fd, 100, 0);
      w.close(fd);
      w.contents(name);
    }
  },
  O_DIRECT: (w) => {
    const fd = w.open('direct', O_RDWR | O_CREAT | O_DIRECT);
    w.pwrite(fd, aligned(64 * KIB, 1), 0);
    w.pwrite(fd, aligned(4 * KIB, 2), 8 * KIB);
    w.pwrite(fd, aligned(MIB, 3), MIB);
    w.pread(fd, 64 * KIB, 0, aligned(64 * KIB, 0));
    w.pread(fd, MIB, MIB, aligned(MIB, 0));
    w.pread(fd, 64 * KIB, 2 * MIB - 4 * KIB, aligned(64 * KIB, 0));
    w.pread(fd, 64 * KIB, 2 * MIB, aligned(64 * KIB, 0));
    w.contents('direct');
    const buffered = w.open('direct');
    w.pwrite(buffered, 'buffered', 8 * KIB);
    w.pread(fd, 4 * KIB, 8 * KIB, aligned(4 * KIB, 0));
    w.pwrite(fd, aligned(4 * KIB, 9), 8 * KIB);
    w.pread(buffered, 16, 8 * KIB);
  },
  'flags that name no file': (w) => {
    w.mkdir('dir');
    w.make('file', 'x');
    w.symlink('file', 'link');
    w.open('link', O_RDONLY | O_NOFOLLOW);
    w.open('dir', O_RDONLY | O_DIRECTORY);
    w.open('link', O_RDONLY | O_DIRECTORY);
    w.open('.', O_RDONLY);
    w.open('dir/', O_RDWR | O_CREAT);
    w.open('file/', O_RDONLY);
  },
  'a file without a name': (w) => {
    const fd = w.open('.', O_TMPFILE | O_RDWR, 0o600);
    w.pwrite(fd, 'nameless', 0);
    w.pread(fd, 20, 0);
    w.list();
    w.linkDescriptor(fd, 'named');
    w.contents('named');
    w.stat('named');
  },
  'used after it was unlinked': (w) => {
    w.make('file', 'contents');
    const fd = w.open('file');
    w.unlink('file');
    w.stat('file');
    w.pread(fd, 20, 0);
    w.pwrite(fd, 'x'.repeat(5000), 3);
    w.pread(fd, 6000, 0);
    w.ftruncate(fd, 4);
    w.fchmod(fd, 0o600);
    w.fsync(fd);
    w.futimens(fd, { seconds: 1, nanoseconds: 2 }, { seconds: 3, nanoseconds: 4 });
    w.make('file', 'another');
    w.pread(fd, 4, 0);
    w.contents('file');
    w.rmdir('.');
    w.close(fd);
    w.list();
  },
  'space for a file that was unlinked': (w) => {
    const fd = w.open('file', O_RDWR | O_CREAT);
    w.unlink('file');
    w.fallocate(fd, 0, 0, 8192);
    w.pwrite(fd, 'x', 100_000);
    w.segments(fd);
  },
  'running a program, and writing to one that runs': (w) => {
    w.run('cp', '/bin/sleep', 'program');
    w.run('./program', '0');
    w.run(
      'sh',
      '-c',
      './program 30 & p=$!; while [ ! -e /proc/$p/exe ] || ! readlink /proc/$p/exe | grep -q program; do :; done; (echo x >program) 2>/dev/null; echo $?; kill $p',
    );
    w.chmod('program', 0o644);
    w.run('sh', '-c', './program 0 2>/dev/null; echo $?');
  },
  'sizes that grow and shrink': (w) => {
    const fd = w.open('file', O_RDWR | O_CREAT);
    w.pwrite(fd, 'x'.repeat(10_000), 0);
    w.ftruncate(fd, 5000);
    w.stat('file');
    w.ftruncate(fd, 20_000);
    w.pread(fd, 20, 4990);
    w.contents('file');
    w.truncate('file', 0);
    w.stat('file');
    w.truncate('file', 3);
    w.contents('file');
    w.ftruncate(fd, -1);
    w.pread(fd, 10, 3);
    w.pread(fd, 10, 100);
    w.pread(fd, 0, 0);
    w.pwrite(fd, '', 0);
  },
  'offsets beyond 32 and 40 bits': (w) => {
    const fd = w.open('big', O_RDWR | O_CREAT);
    for (const offset of [2 ** 31 - 3, 2 ** 32 - 2, 2 ** 33 + 1, 2 ** 40 + 7, 2 ** 43]) {
      w.pwrite(fd, `at ${offset}`, offset);
      w.pread(fd, 30, offset - 4);
    }
    w.stat('big');
    w.lseek(fd, -5, 2);
    w.ftruncate(fd, 2 ** 42 + 11);
    w.stat('big');
  },
  'holes beyond 32 and 40 bits': (w) => {
    const fd = w.open('big', O_RDWR | O_CREAT);
    for (const offset of [2 ** 31 - 3, 2 ** 32 - 2, 2 ** 40 + 7, 2 ** 43]) w.pwrite(fd, 'x', offset);
    w.segments(fd);
    w.fallocate(fd, PUNCH_HOLE | KEEP_SIZE, 2 ** 40, 4096);
    w.fallocate(fd, 0, 2 ** 42, 4096);
    w.segments(fd);
  },
  'offsets that no file can have': (w) => {
    const fd = w.open('big', O_RDWR | O_CREAT);
    w.pwrite(fd, 'x', 2 ** 44);
    w.pwrite(fd, 'x', 2 ** 52);
    w.ftruncate(fd, 2 ** 52);
    w.pread(fd, 10, 2 ** 52);
    w.lseek(fd, -1, 0);
    w.lseek(fd, 1, SEEK_DATA);
    w.stat('big');
  },
  'holes are found exactly': (w) => {
    const fd = w.open('sparse', O_RDWR | O_CREAT);
    w.ftruncate(fd, MIB);
    w.segments(fd);
    for (const block of [0, 3, 4, 5, 100, 255]) w.pwrite(fd, 'x'.repeat(4096), block * 4096);
    w.segments(fd);
    w.lseek(fd, 5000, SEEK_DATA);
    w.lseek(fd, 5000, SEEK_HOLE);
    w.lseek(fd, MIB, SEEK_HOLE);
    w.lseek(fd, MIB, SEEK_DATA);
    w.lseek(fd, MIB + 1, SEEK_HOLE);
    w.allocated('sparse');
    w.pread(fd, 5000, 4096);
  },
  preallocation: (w) => {
    const fd = w.open('file', O_RDWR | O_CREAT);
    w.fallocate(fd, 0, 0, 64 * KIB);
    w.stat('file');
    w.allocated('file');
    w.fallocate(fd, KEEP_SIZE, 64 * KIB, 64 * KIB);
    w.stat('file');
    w.allocated('file');
    w.fallocate(fd, 0, 0, 0);
    w.fallocate(fd, 0, -1, 10);
    w.fallocate(fd, 0, 2 ** 52, 10);
    w.contents('file');
    w.mkdir('dir');
    w.fallocate(w.open('dir', O_RDONLY), 0, 0, 4096);
  },
  'holes are punched': (w) => {
    const fd = w.open('file', O_RDWR | O_CREAT);
    w.pwrite(fd, Buffer.alloc(256 * KIB, 7), 0);
    w.fallocate(fd, PUNCH_HOLE | KEEP_SIZE, 64 * KIB, 64 * KIB);
    w.segments(fd);
    w.allocated('file');
    w.fallocate(fd, PUNCH_HOLE | KEEP_SIZE, 1000, 10_000);
    w.pread(fd, 12_000, 0);
    w.fallocate(fd, PUNCH_HOLE | KEEP_SIZE, 250 * KIB, MIB);
    w.stat('file');
    w.contents('file');
    w.segments(fd);
    w.fallocate(fd, PUNCH_HOLE, 0, 4096);
  },
  'ranges are zeroed': (w) => {
    const fd = w.open('file', O_RDWR | O_CREAT);
    w.pwrite(fd, Buffer.alloc(64 * KIB, 7), 0);
    w.fallocate(fd, ZERO_RANGE, 5000, 20_000);
    w.contents('file');
    w.fallocate(fd, ZERO_RANGE, 60 * KIB, 16 * KIB);
    w.stat('file');
    w.fallocate(fd, ZERO_RANGE | KEEP_SIZE, 70 * KIB, 16 * KIB);
    w.stat('file');
    w.contents('file');
  },
  'what lies cached is dropped by a punch': (w) => {
    const fd = w.open('file', O_RDWR | O_CREAT);
    w.pwrite(fd, Buffer.alloc(64 * KIB, 7), 0);
    w.contents('file');
    const mapping = new SharedMapping(fd, 64 * KIB);
    w.note('mapped before', mapping.read(8192, 2)[0]);
    w.fallocate(fd, PUNCH_HOLE | KEEP_SIZE, 8192, 8192);
    w.note('mapped after', mapping.read(8192, 2)[0]);
    w.contents('file');
    w.note('unmap', mapping.unmap());
  },
  'copying within the kernel': (w) => {
    w.make('from', Buffer.alloc(300 * KIB, 5));
    const from = w.open('from', O_RDONLY);
    const to = w.open('to', O_RDWR | O_CREAT);
    w.copyRange(from, to, 100 * KIB);
    w.copyRange(from, to, 300 * KIB);
    w.contents('to');
    w.run('cp', '--reflink=auto', '--sparse=auto', 'from', 'third');
    w.contents('third');
  },
  'large writes and reads': (w) => {
    const fd = w.open('large', O_RDWR | O_CREAT);
    const bytes = Buffer.alloc(5 * MIB + 123);
    for (let i = 0; i < bytes.length; i += 4) bytes[i] = i >> 11;
    w.pwrite(fd, bytes, 77);
    w.pread(fd, bytes.length + 500, 0);
    w.contents('large');
    w.fsync(fd);
    w.syncfs(fd);
  },
  'a shared mapping and the file': (w) => {
    const fd = w.open('file', O_RDWR | O_CREAT);
    w.ftruncate(fd, 64 * KIB);
    const mapping = new SharedMapping(fd, 64 * KIB);
    mapping.write(5000, Buffer.from('by mapping'));
    w.note('msync', mapping.sync());
    w.pread(fd, 10, 5000);
    w.pwrite(fd, 'by write', 9000);
    w.note('mapped', mapping.read(9000, 8));
    mapping.write(64 * KIB - 3, Buffer.from('end'));
    w.close(fd);
    w.note('unmap', mapping.unmap());
    w.contents('file');
    w.run('sh', '-c', 'sync file; sha256sum file');
  },
  'locks of whole files': (w) => {
    w.make('file');
    const a = w.open('file');
    const b = w.open('file');
    w.flock(a, LOCK_EX | LOCK_NB);
    w.flock(b, LOCK_EX | LOCK_NB);
    w.flock(b, LOCK_SH | LOCK_NB);
    w.run('flock', '-n', 'file', 'true');
    w.flock(a, LOCK_SH | LOCK_NB);
    w.flock(b, LOCK_SH | LOCK_NB);
    w.flock(a, LOCK_UN);
    w.flock(b, LOCK_EX | LOCK_NB);
    w.close(b);
    w.run('flock', '-n', 'file', 'true');
  },
  'locks of ranges': (w) => {
    w.make('file', 'x'.repeat(100));
    const a = w.open('file');
    const b = w.open('file');
    w.lock(a, F_OFD_SETLK, 1, 0, 50);
    w.lock(b, F_OFD_SETLK, 1, 40, 20);
    w.lock(b, F_OFD_SETLK, 1, 50, 20);
    w.lock(b, F_OFD_SETLK, 0, 0, 10);
    w.lock(a, F_OFD_SETLK, 2, 0, 0);
    w.lock(b, F_OFD_SETLK, 1, 0, 10);
    w.lock(a, F_SETLK, 1, 90, 5);
    w.lock(a, F_GETLK, 1, 0, 10);
    w.close(b);
    w.lock(a, F_OFD_SETLK, 1, 0, 0);
  },
  'collapsing and inserting ranges': (w) => {
    const fd = w.open('file', O_RDWR | O_CREAT);
    w.pwrite(fd, Buffer.alloc(64 * KIB, 7), 0);
    w.fallocate(fd, COLLAPSE_RANGE, 4 * KIB, 8 * KIB);
    w.stat('file');
    w.fallocate(fd, INSERT_RANGE, 4 * KIB, 8 * KIB);
    w.stat('file');
    w.contents('file');
  },
  'an image by the tools that make one': (w) => {
    w.run(
      'sh',
      '-c',
      'PATH=$PATH:/sbin:/usr/sbin; truncate -s 64M disk && mkfs.ext4 -q -F -E root_owner=0:0 disk && e2fsck -fn disk >/dev/null 2>&1; echo $?',
    );
    w.run(
      'sh',
      '-c',
      'qemu-img create -q -f qcow2 disk.qcow2 64M && qemu-io -c "write -P 7 1M 2M" -c "discard 1M 64k" disk.qcow2 >/dev/null && qemu-img check -q disk.qcow2; echo $?',
    );
    w.run('sh', '-c', 'qemu-io -f qcow2 -c "read -P 7 2M 1M" disk.qcow2 | grep -c "^read 1048576"');
  },
};
