/** Cases about ranges of files: bad arguments, limits, preallocation by posix_fallocate(3), copies within the kernel. */
import {
  type Cases,
  O_APPEND,
  O_CREAT,
  O_DIRECTORY,
  O_PATH,
  O_RDONLY,
  O_RDWR,
  O_WRONLY,
  SEEK_DATA,
  SEEK_HOLE,
} from './workbench.js';

const KIB = 1024;
const KEEP_SIZE = 1;
const PUNCH_HOLE = 2;
const COLLAPSE_RANGE = 8;
const ZERO_RANGE = 16;
const SEEK_SET = 0;
const SEEK_END = 2;
/** ext4's greatest file is 16 TiB less one block; others hold more. */
const TOO_FAR = 2 ** 44;

/** `seed` keeps the contents of different files apart. */
const patterned = (length: number, seed: number): Buffer =>
  Buffer.from(Array.from({ length }, (_, i) => (i * 7 + (i >> 8) * 13 + seed) & 0xff));

export const rangeCases: Cases = {
  'offsets and lengths that make no sense': (w) => {
    const fd = w.open('file', O_RDWR | O_CREAT);
    w.pwrite(fd, 'contents', 0);
    w.expect('EINVAL', () => {
      w.pwrite(fd, 'x', -1);
      w.lseek(fd, -1, SEEK_SET);
      w.lseek(fd, -9, SEEK_END);
      w.lseek(fd, 0, 99);
      w.ftruncate(fd, -1);
      w.truncate('file', -1);
      w.fallocate(fd, 0, -1, 5);
      w.fallocate(fd, 0, 0, 0);
      w.fallocate(fd, 0, 0, -5);
      w.fallocate(fd, KEEP_SIZE | PUNCH_HOLE, 0, 0);
    });
    w.expect('ENXIO', () => {
      w.lseek(fd, -1, SEEK_DATA);
      w.lseek(fd, 8, SEEK_DATA);
      w.lseek(fd, 9, SEEK_HOLE);
    });
    w.pread(fd, 5, -1);
    w.contents('file');
  },
  'kinds of descriptors': (w) => {
    w.make('file', 'contents');
    w.mkdir('dir');
    const reader = w.open('file', O_RDONLY);
    const writer = w.open('file', O_WRONLY);
    const path = w.open('file', O_PATH);
    const folder = w.open('dir', O_RDONLY | O_DIRECTORY);
    w.expect('EBADF', () => {
      w.pwrite(reader, 'x', 0);
      w.write(path, 'x');
      w.fallocate(reader, 0, 0, 5);
      w.posixFallocate(reader, 0, 5);
      w.pwrite(folder, 'x', 0);
      w.fallocate(path, 0, 0, 5);
      w.ftruncate(path, 0);
      w.fchmod(path, 0o600);
      w.pread(writer, 5, 0);
      w.flock(path, 2);
    });
    w.expect('EINVAL', () => {
      w.ftruncate(reader, 0);
      w.ftruncate(folder, 0);
    });
    w.expect('EISDIR', () => w.pread(folder, 5, 0));
    w.expect('EBADF', () => w.pwrite(999_999, 'x', 0));
    w.fsync(folder);
    w.fsync(reader);
    w.contents('file');
  },
  'preallocation by posix_fallocate': (w) => {
    const fd = w.open('file', O_RDWR | O_CREAT);
    w.pwrite(fd, patterned(5000, 1), 0);
    w.expect(0, () => w.posixFallocate(fd, 0, 3000));
    w.stat('file');
    w.expect(0, () => w.posixFallocate(fd, 4000, 60_000));
    w.stat('file');
    w.contents('file');
    w.expect('EINVAL', () => {
      w.posixFallocate(fd, 0, 0);
      w.posixFallocate(fd, -1, 5);
      w.posixFallocate(fd, 5, -5);
    });
    w.contents('file');
    w.mknod('fifo', 0o010_600);
    const fifo = w.open('fifo', O_RDWR);
    w.expect('ESPIPE', () => w.posixFallocate(fifo, 0, 5));
  },
  'beyond the greatest file': (w) => {
    const fd = w.open('file', O_RDWR | O_CREAT);
    w.pwrite(fd, 'contents', 0);
    w.pwrite(fd, 'x', TOO_FAR);
    w.ftruncate(fd, TOO_FAR + 1);
    w.truncate('file', TOO_FAR + 1);
    w.fallocate(fd, 0, TOO_FAR, 4096);
    w.stat('file');
  },
  'seeking beyond the greatest file': (w) => {
    const fd = w.open('file', O_RDWR | O_CREAT);
    w.lseek(fd, TOO_FAR + 1, SEEK_SET);
  },
  'beyond the limit of a process': (w) => {
    // setrlimit(2): RLIMIT_FSIZE, here in blocks of 512 bytes; the signal is ignored, so the calls answer EFBIG.
    const limited = (command: string) => w.run('sh', '-c', `trap '' XFSZ; ulimit -f 16; ${command}`);
    limited('dd if=/dev/zero of=written bs=1000 count=20 2>/dev/null; echo $?');
    w.stat('written');
    limited('dd if=/dev/zero of=direct bs=4096 count=5 oflag=direct 2>/dev/null; echo $?');
    w.stat('direct');
    limited('truncate -s 8193 truncated 2>/dev/null; echo $?; truncate -s 8192 truncated; echo $?');
    w.stat('truncated');
    limited('fallocate -l 8193 allocated 2>/dev/null; echo $?');
    w.stat('allocated');
    w.run('sh', '-c', '(ulimit -f 16; dd if=/dev/zero of=killed bs=20000 count=2 2>/dev/null); echo $?');
    w.stat('killed');
  },
  'modes of fallocate that do not go together': (w) => {
    const fd = w.open('file', O_RDWR | O_CREAT);
    w.pwrite(fd, patterned(20_000, 2), 0);
    w.expect('EOPNOTSUPP', () => {
      w.fallocate(fd, PUNCH_HOLE, 0, 4096);
      w.fallocate(fd, PUNCH_HOLE | ZERO_RANGE | KEEP_SIZE, 0, 4096);
      w.fallocate(fd, 0x1000, 0, 4096);
    });
    w.fallocate(fd, COLLAPSE_RANGE | PUNCH_HOLE, 0, 4096);
    w.contents('file');
  },
  'edges of holes and of zeroed ranges': (w) => {
    for (const [name, mode] of Object.entries({ punched: PUNCH_HOLE | KEEP_SIZE, zeroed: ZERO_RANGE })) {
      for (const [index, [offset, length]] of [
        [0, 1],
        [4095, 2],
        [4096, 4096],
        [1, 8191],
        [4097, 12_287],
        [60_000, 1],
        [59_999, 100_000],
        [70_000, 10],
      ].entries()) {
        const file = `${name}-${index}`;
        const fd = w.open(file, O_RDWR | O_CREAT);
        w.pwrite(fd, patterned(60_000, 3), 0);
        w.fallocate(fd, mode, offset!, length!);
        w.stat(file);
        w.contents(file);
        w.fsync(fd);
        w.segments(fd);
        w.allocated(file);
      }
    }
  },
  'a shrunk file grows with zeros': (w) => {
    const fd = w.open('file', O_RDWR | O_CREAT);
    for (const [cut, grown] of [
      [5000, 9000],
      [4096, 8192],
      [1, 4097],
      [0, 10],
      [8191, 8193],
    ]) {
      w.pwrite(fd, patterned(10_000, 4), 0);
      w.ftruncate(fd, cut!);
      w.ftruncate(fd, grown!);
      w.contents('file');
      w.pread(fd, 10_000, 0);
    }
  },
  'appending wherever it is told to write': (w) => {
    const fd = w.open('file', O_RDWR | O_CREAT | O_APPEND);
    w.write(fd, 'one');
    // pwrite(2), BUGS: Linux appends whatever the offset.
    w.pwrite(fd, 'two', 0);
    w.lseek(fd, 0, SEEK_SET);
    w.write(fd, 'three');
    w.pread(fd, 3, 0);
    w.truncate('file', 1);
    w.write(fd, 'four');
    w.contents('file');
  },
  'copies within one file and between two': (w) => {
    w.make('from', patterned(100 * KIB, 5));
    const from = w.open('from', O_RDWR);
    const to = w.open('to', O_RDWR | O_CREAT);
    w.copyRangeAt(from, 0, to, 0, 4096);
    w.copyRangeAt(from, 10, to, 5000, 10_000);
    w.contents('to');
    w.copyRangeAt(from, 99 * KIB, to, 0, 4096);
    w.copyRangeAt(from, 100 * KIB, to, 0, 4096);
    w.copyRangeAt(from, 200 * KIB, to, 0, 4096);
    w.copyRangeAt(from, 0, from, 50 * KIB, 20 * KIB);
    w.contents('from');
    w.copyRangeAt(from, 0, to, 3 * KIB * KIB, 100);
    w.stat('to');
    w.contents('to');
    w.copyRangeAt(from, 0, to, 0, 0);
  },
  'copies that must not be': (w) => {
    w.make('file', patterned(10_000, 6));
    const both = w.open('file', O_RDWR);
    const reader = w.open('file', O_RDONLY);
    const writer = w.open('file', O_WRONLY);
    const appender = w.open('file', O_RDWR | O_APPEND);
    w.mkdir('dir');
    const folder = w.open('dir', O_RDONLY);
    w.copyRangeAt(both, 0, both, 100, 5000);
    w.copyRangeAt(both, 0, reader, 0, 10);
    w.copyRangeAt(writer, 0, both, 0, 10);
    w.copyRangeAt(both, 0, appender, 0, 10);
    w.copyRangeAt(folder, 0, both, 0, 10);
    w.copyRangeAt(both, 0, folder, 0, 10);
    w.contents('file');
  },
  'copies from and to another file system': (w) => {
    w.run('sh', '-c', 'cp /proc/self/mounts there && test -s there; echo $?');
    w.run(
      'sh',
      '-c',
      'seq 20000 >numbers && cp numbers copy && cmp numbers copy && cat numbers copy | md5sum',
    );
    w.run(
      'sh',
      '-c',
      'd=$(mktemp -d -p /dev/shm) && cp numbers $d/n && cmp numbers $d/n; cp $d/n back; rm -r $d; cmp back numbers',
    );
  },
};
