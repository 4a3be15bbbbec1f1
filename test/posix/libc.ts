/** The C library as a test calls it: its own bindings, so that a fault in the product's cannot hide here. */
import { constants as osConstants } from 'node:os';
import koffi from 'koffi';

const library = koffi.load('libc.so.6');

type Call = (...args: unknown[]) => number;

const ERRNO_NAMES = new Map(
  Object.entries(osConstants.errno).map(([name, value]) => [value as number, name]),
);

/** `EEXIST` for 17; the number where Node knows no name. */
export const errnoName = (errno: number): string => ERRNO_NAMES.get(errno) ?? `errno ${errno}`;

/** A C function that answers -1 with errno set; here it answers the result, or -errno. */
const bind = (prototype: string): Call => {
  const call = library.func(prototype);
  return (...args) => {
    const result = call(...args) as number | bigint;
    return Number(result) === -1 ? -koffi.errno() : Number(result);
  };
};

export const libc = {
  openat: bind('int openat(int dir, const void *path, int flags, unsigned int mode)'),
  close: bind('int close(int fd)'),
  read: bind('int64_t read(int fd, void *buffer, size_t length)'),
  write: bind('int64_t write(int fd, const void *buffer, size_t length)'),
  pread: bind('int64_t pread(int fd, void *buffer, size_t length, int64_t offset)'),
  pwrite: bind('int64_t pwrite(int fd, const void *buffer, size_t length, int64_t offset)'),
  lseek: bind('int64_t lseek(int fd, int64_t offset, int whence)'),
  fallocate: bind('int fallocate(int fd, int mode, int64_t offset, int64_t length)'),
  clockGettime: bind('int clock_gettime(int clock, void *time)'),
  getdents64: bind('int64_t getdents64(int fd, void *buffer, size_t length)'),
  truncate: bind('int truncate(const void *path, int64_t size)'),
  ftruncate: bind('int ftruncate(int fd, int64_t size)'),
  fsync: bind('int fsync(int fd)'),
  fdatasync: bind('int fdatasync(int fd)'),
  syncfs: bind('int syncfs(int fd)'),
  copyFileRange: bind(
    'int64_t copy_file_range(int from, void *fromOffset, int to, void *toOffset, size_t length, unsigned int flags)',
  ),
  mkdir: bind('int mkdir(const void *path, unsigned int mode)'),
  rmdir: bind('int rmdir(const void *path)'),
  unlink: bind('int unlink(const void *path)'),
  rename: bind('int rename(const void *from, const void *to)'),
  renameat2: bind(
    'int renameat2(int fromDir, const void *from, int toDir, const void *to, unsigned int flags)',
  ),
  linkat: bind('int linkat(int fromDir, const void *from, int toDir, const void *to, int flags)'),
  symlink: bind('int symlink(const void *target, const void *path)'),
  readlink: bind('int64_t readlink(const void *path, void *buffer, size_t length)'),
  chmod: bind('int chmod(const void *path, unsigned int mode)'),
  fchmod: bind('int fchmod(int fd, unsigned int mode)'),
  lchown: bind('int lchown(const void *path, unsigned int uid, unsigned int gid)'),
  chown: bind('int chown(const void *path, unsigned int uid, unsigned int gid)'),
  fchown: bind('int fchown(int fd, unsigned int uid, unsigned int gid)'),
  mknod: bind('int mknod(const void *path, unsigned int mode, uint64_t device)'),
  access: bind('int faccessat(int dir, const void *path, int mode, int flags)'),
  utimensat: bind('int utimensat(int dir, const void *path, const void *times, int flags)'),
  futimens: bind('int futimens(int fd, const void *times)'),
  lsetxattr: bind(
    'int lsetxattr(const void *path, const void *name, const void *value, size_t size, int flags)',
  ),
  lgetxattr: bind('int64_t lgetxattr(const void *path, const void *name, void *value, size_t size)'),
  llistxattr: bind('int64_t llistxattr(const void *path, void *list, size_t size)'),
  lremovexattr: bind('int lremovexattr(const void *path, const void *name)'),
  fsetxattr: bind('int fsetxattr(int fd, const void *name, const void *value, size_t size, int flags)'),
  fgetxattr: bind('int64_t fgetxattr(int fd, const void *name, void *value, size_t size)'),
  flock: bind('int flock(int fd, int operation)'),
  fcntlLock: bind('int fcntl(int fd, int command, void *lock)'),
  munmap: bind('int munmap(void *address, size_t length)'),
  msync: bind('int msync(void *address, size_t length, int flags)'),
} as const;

const posixFallocateCall = library.func(
  'int posix_fallocate(int fd, int64_t offset, int64_t length)',
) as Call;

/** posix_fallocate(3) returns the error itself: here 0, or -errno like the rest. */
export const posixFallocate = (fd: number, offset: number, length: number): number =>
  0 - posixFallocateCall(fd, offset, length);

/** These return the previous value, never an error. They change the calling thread alone (setfsuid(2)). */
const setfsuid = library.func('int setfsuid(unsigned int uid)');
const setfsgid = library.func('int setfsgid(unsigned int gid)');
const mmapCall = library.func(
  'void *mmap(void *address, size_t length, int protection, int flags, int fd, int64_t offset)',
);
const memcpyOut = library.func('void *memcpy(void *to, const void *from, size_t length)');

/** Runs `body` with the file-system identity of another user, who has no privileges over files. */
export const asUser = <T>(uid: number, gid: number, body: () => T): T => {
  setfsgid(gid);
  setfsuid(uid);
  try {
    return body();
  } finally {
    setfsuid(0);
    setfsgid(0);
  }
};

const PROT_READ = 1;
const PROT_WRITE = 2;
const MAP_SHARED = 1;

/** A shared writable mapping of the first `length` bytes of a file, copied from and to by offset. */
export class SharedMapping {
  readonly #address: unknown;
  readonly #base: bigint;
  readonly #length: number;

  constructor(fd: number, length: number) {
    this.#address = mmapCall(null, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    this.#base = BigInt(koffi.address(this.#address));
    if (this.#base === 2n ** 64n - 1n) throw new Error(`mmap: ${errnoName(koffi.errno())}`);
    this.#length = length;
  }

  read(offset: number, length: number): Buffer {
    const bytes = Buffer.alloc(length);
    memcpyOut(bytes, this.#base + BigInt(offset), length);
    return bytes;
  }

  write(offset: number, bytes: Buffer): void {
    memcpyOut(this.#base + BigInt(offset), bytes, bytes.length);
  }

  sync(): number {
    const MS_SYNC = 4;
    return libc.msync(this.#base, this.#length, MS_SYNC);
  }

  unmap(): number {
    return libc.munmap(this.#base, this.#length);
  }
}
