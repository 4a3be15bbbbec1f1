import { constants } from 'node:fs';
import { errnoName, libc, SharedMapping } from '../posix/libc.js';
import type { Random } from '../support/random.js';

const { O_CREAT, O_EXCL, O_RDWR } = constants;
const AT_FDCWD = -100;
const FALLOC_KEEP_SIZE = 1;
const FALLOC_PUNCH_HOLE = 2;
const FALLOC_ZERO_RANGE = 16;
const SEEK_DATA = 3;
const PAGE = 4096;
const BYTES = 64 * PAGE;
const ATTRIBUTES = 6;

const text = (value: string): Buffer => Buffer.from(`${value}\0`);

/** The result of a call that must not fail. */
const ok = (what: string, result: number): number => {
  if (result < 0) throw new Error(`${what}: ${errnoName(-result)}`);
  return result;
};

const expectBytes = (what: string, found: Buffer, wanted: Buffer): void => {
  if (!found.equals(wanted)) throw new Error(`${what}: other bytes`);
};

const exerciseAttributes = (path: Buffer, random: Random): void => {
  for (let i = 0; i < ATTRIBUTES; i++) {
    const name = text(`user.exercise${i}`);
    const value = Buffer.alloc(1 + random.below(200), i + 1);
    const found = Buffer.alloc(value.length);
    ok('setxattr', libc.lsetxattr(path, name, value, value.length, 0));
    ok('getxattr', libc.lgetxattr(path, name, found, found.length));
    expectBytes('getxattr', found, value);
    ok('listxattr', libc.llistxattr(path, Buffer.alloc(PAGE), PAGE));
    ok('removexattr', libc.lremovexattr(path, name));
  }
};

/** The sizes and holes that a guest's discards make. */
const exerciseSpace = (fd: number, random: Random): void => {
  const data = Buffer.alloc(BYTES, 0xa5);
  const page = PAGE * (1 + random.below(30));
  ok('fallocate', libc.fallocate(fd, 0, 0, BYTES));
  ok('pwrite', libc.pwrite(fd, data, BYTES, 0));
  ok('punch hole', libc.fallocate(fd, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, page, PAGE));
  ok('zero range', libc.fallocate(fd, FALLOC_ZERO_RANGE, 2 * page, PAGE));
  data.fill(0, page, page + PAGE).fill(0, 2 * page, 2 * page + PAGE);
  const found = Buffer.alloc(BYTES);
  ok('pread', libc.pread(fd, found, BYTES, 0));
  expectBytes('after a hole and zeroes', found, data);
  ok('seek', libc.lseek(fd, page, SEEK_DATA));
  ok('truncate', libc.ftruncate(fd, page));
  ok('truncate', libc.ftruncate(fd, BYTES));
  data.fill(0, page);
  ok('pread', libc.pread(fd, found, BYTES, 0));
  expectBytes('after truncation', found, data);
};

const exerciseMapping = (fd: number, random: Random): void => {
  const mapping = new SharedMapping(fd, BYTES);
  const written = Buffer.alloc(PAGE);
  random.fill(written);
  const at = PAGE * random.below(BYTES / PAGE);
  mapping.write(at, written);
  ok('msync', mapping.sync());
  const found = Buffer.alloc(PAGE);
  ok('pread', libc.pread(fd, found, PAGE, at));
  expectBytes('after msync', found, written);
  ok('munmap', mapping.unmap());
};

/** Attributes, allocation, sizes and a mapping of one new file, which is removed again. Throws at a wrong answer. */
export const exerciseFile = (name: string, random: Random): void => {
  const path = text(name);
  const fd = ok('open', libc.openat(AT_FDCWD, path, O_CREAT | O_EXCL | O_RDWR, 0o644));
  try {
    exerciseAttributes(path, random);
    exerciseSpace(fd, random);
    exerciseMapping(fd, random);
    ok('fsync', libc.fsync(fd));
    ok('chmod', libc.fchmod(fd, 0o600));
  } finally {
    libc.close(fd);
    libc.unlink(path);
  }
};
