/** Random changes to one file in the manner of fsx: every read is checked against a plain file changed alike. */
import { Random } from '../support/random.js';
import { SharedMapping } from './libc.js';
import { O_APPEND, O_CREAT, O_RDWR, O_SYNC, type Workbench } from './workbench.js';

const KEEP_SIZE = 1;
const PUNCH_HOLE = 2;
const ZERO_RANGE = 16;
const FILE_BYTES_MAX = 1 << 20;
const WRITE_BYTES_MAX = 200_000;

export interface RandomDataOptions {
  readonly seed: number;
  readonly operations: number;
  /** Whether the transport has fallocate(2) and SEEK_HOLE. */
  readonly holes: boolean;
}

export const randomData = (w: Workbench, { seed, operations, holes }: RandomDataOptions): void => {
  const random = new Random(seed);
  let size = 0;
  let fd = w.open('file', O_RDWR | O_CREAT);
  const extent = (): [offset: number, length: number] => {
    const offset = random.below(FILE_BYTES_MAX);
    const longest = Math.min(FILE_BYTES_MAX - offset, random.chance(80) ? 8192 : WRITE_BYTES_MAX);
    return [offset, 1 + random.below(longest)];
  };
  const filled = (length: number): Buffer => {
    const bytes = Buffer.alloc(length, random.next() & 0xff);
    // No two writes are alike, so that a lost or a misplaced one shows.
    bytes.writeUInt32LE(random.next(), 0);
    bytes.writeUInt32LE(random.next(), length - 4);
    return bytes;
  };
  const wrote = (end: number): void => {
    size = Math.max(size, end);
  };
  const fallocate = (mode: number, [offset, length]: [number, number]): void => {
    w.fallocate(fd, mode, offset, length);
    if ((mode & KEEP_SIZE) === 0) wrote(offset + length);
  };
  const kinds: readonly (() => void)[] = [
    () => {
      const [offset, length] = extent();
      w.pwrite(fd, filled(Math.max(length, 4)), offset);
      wrote(offset + Math.max(length, 4));
    },
    () => {
      const [offset, length] = extent();
      w.pread(fd, length, offset);
    },
    () => {
      const [offset, length] = extent();
      w.pread(fd, length, offset);
    },
    () => {
      size = random.below(FILE_BYTES_MAX);
      if (random.chance(50)) w.ftruncate(fd, size);
      else w.truncate('file', size);
    },
    () => {
      if (size < 8192) return;
      const mapping = new SharedMapping(fd, size);
      const offset = random.below(size - 4096);
      w.note('mapped', mapping.read(offset, 16).toString('hex'));
      mapping.write(offset, filled(4 + random.below(4000)).subarray(0, Math.min(4096, size - offset)));
      if (random.chance(30)) w.note('msync', mapping.sync());
      mapping.unmap();
    },
    () => {
      w.close(fd);
      fd = w.open('file', random.chance(10) ? O_RDWR | O_SYNC : O_RDWR);
    },
    () => {
      const appender = w.open('file', O_RDWR | O_APPEND);
      w.write(appender, filled(4 + random.below(500)));
      w.close(appender);
      size = w.lseek(fd, 0, 2);
    },
    () => {
      if (random.chance(5)) w.fsync(fd);
    },
    ...(holes
      ? [
          () => fallocate(PUNCH_HOLE | KEEP_SIZE, extent()),
          () => fallocate(ZERO_RANGE | (random.chance(50) ? KEEP_SIZE : 0), extent()),
          () => fallocate(random.chance(50) ? KEEP_SIZE : 0, extent()),
        ]
      : []),
  ];
  for (let i = 0; i < operations; i++) random.pick(kinds)();
  w.contents('file');
  w.stat('file');
  if (!holes) return;
  w.fsync(fd);
  w.segments(fd);
  // Not what it allocates: a file in many pieces has a block of its own for the list of them, by where they came to lie.
};
