/**
 * The system calls that Node lacks or wraps too dearly, straight from glibc (x64 and arm64), synchronous.
 *
 * Every call returns what the C function returns, or -errno; none throws. Paths are bytes that end in NUL
 * (`cString`), because names on disk need not be UTF-8. Offsets and sizes are exact to 2^53.
 */
import { constants } from 'node:fs';
import koffi from 'koffi';

type Bytes = Uint8Array | Int32Array | Uint32Array | BigInt64Array | BigUint64Array;

/**
 * Calls are made on a stack of koffi's own, one for each thread, which is not given back when the thread ends: 3 MiB with its
 * defaults, and data workers come and go with the load. The functions below are thin, and none of them calls back.
 */
koffi.config({ ...koffi.config(), sync_stack_size: 256 * 1024, sync_heap_size: 64 * 1024 });

const library = koffi.load('libc.so.6');

/** `definition` is checked against the TypeScript signature by eye only: keep the two beside each other. */
const bind = <A extends unknown[]>(definition: string): ((...args: A) => number) => {
  const call = library.func(definition) as unknown as (...args: A) => number;
  return (...args: A): number => {
    const result = call(...args);
    return result < 0 ? -koffi.errno() : result;
  };
};

/** The raw function, for the hot path: -1 on error, then `lastErrno`. */
const raw = <A extends unknown[]>(definition: string): ((...args: A) => number) =>
  library.func(definition) as unknown as (...args: A) => number;

/** Open flags whose values differ between architectures come from Node; the rest are asm-generic. */
export const O_RDONLY = constants.O_RDONLY;
export const O_WRONLY = constants.O_WRONLY;
export const O_RDWR = constants.O_RDWR;
export const O_ACCMODE = 3;
export const O_CREAT = constants.O_CREAT;
export const O_EXCL = constants.O_EXCL;
export const O_NOCTTY = constants.O_NOCTTY;
export const O_TRUNC = constants.O_TRUNC;
export const O_APPEND = constants.O_APPEND;
export const O_DIRECT = constants.O_DIRECT;
export const O_DIRECTORY = constants.O_DIRECTORY;
export const O_NOFOLLOW = constants.O_NOFOLLOW;
export const O_CLOEXEC = 0o2000000;
export const O_PATH = 0o10000000;
export const O_TMPFILE = 0o20000000 | O_DIRECTORY;

export const AT_FDCWD = -100;
export const AT_SYMLINK_NOFOLLOW = 0x100;
export const AT_REMOVEDIR = 0x200;
export const AT_SYMLINK_FOLLOW = 0x400;
export const AT_EMPTY_PATH = 0x1000;

export const S_IFMT = 0o170000;
export const S_IFDIR = 0o040000;
export const S_IFREG = 0o100000;
export const S_ISUID = 0o4000;
export const S_ISGID = 0o2000;
export const S_IXGRP = 0o010;

export const FALLOC_FL_KEEP_SIZE = 1;
export const FALLOC_FL_PUNCH_HOLE = 2;
export const FALLOC_FL_ZERO_RANGE = 16;

export const SEEK_SET = 0;
export const SEEK_DATA = 3;
export const SEEK_HOLE = 4;

export const RESOLVE_NO_MAGICLINKS = 0x02;
export const RESOLVE_BENEATH = 0x08;

export const MNT_FORCE = 1;
export const MNT_DETACH = 2;
export const UMOUNT_NOFOLLOW = 8;

export const MSG_DONTWAIT = 0x40;
export const MSG_NOSIGNAL = 0x4000;

export const SHUT_WR = 1;
export const SHUT_RDWR = 2;

export const EFD_NONBLOCK = 0o4000;
export const EFD_CLOEXEC = 0o2000000;

export const RENAME_NOREPLACE = 1;
export const UTIME_NOW = 0x3fffffff;
export const UTIME_OMIT = 0x3ffffffe;
export const CLONE_FS = 0x200;

/** `text` (or raw bytes) with the NUL that C wants. */
export const cString = (text: string | Uint8Array): Uint8Array =>
  Buffer.concat([typeof text === 'string' ? Buffer.from(text) : text, Buffer.of(0)]);

export const EMPTY_PATH = cString('');

/** Address of the first byte of `data`; its memory must stay referenced while the address is in use. */
export const addressOf = (data: Uint8Array): bigint => koffi.address(data);

export const lastErrno = (): number => koffi.errno();

/**
 * `addressOf` as a number, for the calls that every request makes: handing over an array costs each of them a sixth more.
 * Addresses of a process take 47 bits.
 */
export const addressNumberOf = (data: Uint8Array): number => Number(addressOf(data));
export const readTo = raw<[fd: number, address: number, length: number]>(
  'int64_t read(int fd, int64_t data, int64_t length)',
);
export const writeFrom = raw<[fd: number, address: number, length: number]>(
  'int64_t write(int fd, int64_t data, int64_t length)',
);
export const preadTo = raw<[fd: number, address: number, length: number, offset: number]>(
  'int64_t pread(int fd, int64_t data, int64_t length, int64_t offset)',
);
export const rawWrite = raw<[fd: number, data: Uint8Array, length: number]>(
  'int64_t write(int fd, const void *data, size_t length)',
);
const writeFunction = library.func('int64_t write(int fd, const void *data, size_t length)');
/** write(2) in the thread pool; resolves when the call is over, however it went. */
export const writeInPool = (fd: number, data: Uint8Array): Promise<void> =>
  new Promise((resolve) => {
    writeFunction.async(fd, data, data.length, () => resolve());
  });
/** Two words for each pollfd: the descriptor, then `events` in the low and `revents` in the high half. */
export const rawPoll = raw<[fds: Int32Array, count: number, timeout: number]>(
  'int poll(void *fds, unsigned long count, int timeout)',
);
export const POLLIN = 1;
export const POLLOUT = 4;
export const POLLERR = 8;
export const POLLHUP = 16;
/** Another number of the same open file. */
export const duplicate = bind<[fd: number]>('int dup(int fd)');

/** The raw function, as all of `raw`; so is `recv`. */
export const send = raw<[fd: number, data: Uint8Array, length: number, flags: number]>(
  'int64_t send(int fd, const void *data, size_t length, int flags)',
);
export const recv = raw<[fd: number, data: Uint8Array, length: number, flags: number]>(
  'int64_t recv(int fd, void *data, size_t length, int flags)',
);
export const rawPwrite = raw<[fd: number, data: Uint8Array, length: number, offset: number]>(
  'int64_t pwrite(int fd, const void *data, size_t length, int64_t offset)',
);

export const read = bind<[fd: number, data: Uint8Array, length: number]>(
  'int64_t read(int fd, void *data, size_t length)',
);
export const write = bind<[fd: number, data: Uint8Array, length: number]>(
  'int64_t write(int fd, const void *data, size_t length)',
);
export const pread = bind<[fd: number, data: Uint8Array, length: number, offset: number]>(
  'int64_t pread(int fd, void *data, size_t length, int64_t offset)',
);
export const pwrite = bind<[fd: number, data: Uint8Array, length: number, offset: number]>(
  'int64_t pwrite(int fd, const void *data, size_t length, int64_t offset)',
);
export const close = bind<[fd: number]>('int close(int fd)');
export const openat = bind<[dir: number, path: Uint8Array, flags: number, mode: number]>(
  'int openat(int dir, const void *path, int flags, uint32_t mode)',
);
/** What is past 2^53 comes back as a bigint. */
export const lseek = bind<[fd: number, offset: number | bigint, whence: number]>(
  'int64_t lseek(int fd, int64_t offset, int whence)',
);
export const fsync = bind<[fd: number]>('int fsync(int fd)');
export const fdatasync = bind<[fd: number]>('int fdatasync(int fd)');
export const ftruncate = bind<[fd: number, size: number]>('int ftruncate(int fd, int64_t size)');
export const fallocate = bind<[fd: number, mode: number, offset: number, length: number]>(
  'int fallocate(int fd, int mode, int64_t offset, int64_t length)',
);

/** Fills a `struct statx` (256 bytes, see `StatBuffer`). */
export const statx = bind<[dir: number, path: Uint8Array, flags: number, mask: number, out: Uint8Array]>(
  'int statx(int dir, const void *path, int flags, uint32_t mask, void *out)',
);
/** Fills a `struct statvfs` (see `StatVfsBuffer`). */
export const fstatvfs = bind<[fd: number, out: BigUint64Array]>('int fstatvfs(int fd, void *out)');

export const mkdirat = bind<[dir: number, path: Uint8Array, mode: number]>(
  'int mkdirat(int dir, const void *path, uint32_t mode)',
);
export const mknodat = bind<[dir: number, path: Uint8Array, mode: number, device: number]>(
  'int mknodat(int dir, const void *path, uint32_t mode, uint64_t device)',
);
export const unlinkat = bind<[dir: number, path: Uint8Array, flags: number]>(
  'int unlinkat(int dir, const void *path, int flags)',
);
export const linkat = bind<
  [dir: number, path: Uint8Array, newDir: number, newPath: Uint8Array, flags: number]
>('int linkat(int dir, const void *path, int newDir, const void *newPath, int flags)');
export const symlinkat = bind<[target: Uint8Array, dir: number, path: Uint8Array]>(
  'int symlinkat(const void *target, int dir, const void *path)',
);
export const readlinkat = bind<[dir: number, path: Uint8Array, out: Uint8Array, size: number]>(
  'int64_t readlinkat(int dir, const void *path, void *out, size_t size)',
);
export const renameat2 = bind<
  [dir: number, path: Uint8Array, newDir: number, newPath: Uint8Array, flags: number]
>('int renameat2(int dir, const void *path, int newDir, const void *newPath, uint32_t flags)');

export const fchmod = bind<[fd: number, mode: number]>('int fchmod(int fd, uint32_t mode)');
export const chmod = bind<[path: Uint8Array, mode: number]>('int chmod(const void *path, uint32_t mode)');
/** An owner or group of 0xffffffff stays as it is. */
export const fchownat = bind<[dir: number, path: Uint8Array, uid: number, gid: number, flags: number]>(
  'int fchownat(int dir, const void *path, uint32_t uid, uint32_t gid, int flags)',
);
/** `times`: two `struct timespec`, atime then mtime, as four 64-bit words. */
export const utimensat = bind<[dir: number, path: Uint8Array, times: BigInt64Array, flags: number]>(
  'int utimensat(int dir, const void *path, const void *times, int flags)',
);

export const getxattr = bind<[path: Uint8Array, name: Uint8Array, out: Uint8Array | null, size: number]>(
  'int64_t getxattr(const void *path, const void *name, void *out, size_t size)',
);
export const setxattr = bind<
  [path: Uint8Array, name: Uint8Array, value: Uint8Array, size: number, flags: number]
>('int setxattr(const void *path, const void *name, const void *value, size_t size, int flags)');
export const listxattr = bind<[path: Uint8Array, out: Uint8Array | null, size: number]>(
  'int64_t listxattr(const void *path, void *out, size_t size)',
);
export const removexattr = bind<[path: Uint8Array, name: Uint8Array]>(
  'int removexattr(const void *path, const void *name)',
);
export const fgetxattr = bind<[fd: number, name: Uint8Array, out: Uint8Array | null, size: number]>(
  'int64_t fgetxattr(int fd, const void *name, void *out, size_t size)',
);
export const fsetxattr = bind<[fd: number, name: Uint8Array, value: Uint8Array, size: number, flags: number]>(
  'int fsetxattr(int fd, const void *name, const void *value, size_t size, int flags)',
);
export const fremovexattr = bind<[fd: number, name: Uint8Array]>(
  'int fremovexattr(int fd, const void *name)',
);

export const getdents64 = bind<[fd: number, out: Uint8Array, size: number]>(
  'int64_t getdents64(int fd, void *out, size_t size)',
);
export const ioctl = bind<[fd: number, request: number, argument: Bytes]>(
  'int ioctl(int fd, unsigned long request, void *argument)',
);
export const mount = bind<
  [source: Uint8Array, target: Uint8Array, type: Uint8Array, flags: number, data: Uint8Array]
>(
  'int mount(const void *source, const void *target, const void *type, unsigned long flags, const void *data)',
);
export const umount2 = bind<[target: Uint8Array, flags: number]>(
  'int umount2(const void *target, int flags)',
);
export const shutdown = bind<[fd: number, how: number]>('int shutdown(int fd, int how)');
/** A descriptor that holds a 64-bit counter: writes of 8 bytes add to it, a read takes and clears it. */
export const eventfd = bind<[initial: number, flags: number]>('int eventfd(uint32_t initial, int flags)');
/** Ends the process without waiting for its threads; nothing is cleaned up. */
export const exitNow = bind<[code: number]>('void _exit(int code)');
/** Acts on the calling thread only. */
export const unshare = bind<[flags: number]>('int unshare(int flags)');
/** Returns the previous mask; it belongs to the process, or to the thread after `unshare(CLONE_FS)`. */
export const umask = bind<[mask: number]>('int umask(uint32_t mask)');

const getrlimit = bind<[resource: number, out: BigUint64Array]>('int getrlimit(int resource, void *out)');
const setrlimit = bind<[resource: number, limits: BigUint64Array]>(
  'int setrlimit(int resource, const void *limits)',
);
const syscall4 = bind<[number: number, a: number, b: Uint8Array, c: BigUint64Array, d: number]>(
  'int64_t syscall(long number, long a, const void *b, const void *c, long d)',
);

/** Variadic in C; on x64 and arm64 an integer argument is passed alike. */
const fcntl = bind<[fd: number, command: number, argument: number]>(
  'int fcntl(int fd, int command, long argument)',
);
const setsockopt = bind<[fd: number, level: number, name: number, value: Int32Array, size: number]>(
  'int setsockopt(int fd, int level, int name, const void *value, uint32_t size)',
);
const getsockopt = bind<[fd: number, level: number, name: number, value: Int32Array, size: Int32Array]>(
  'int getsockopt(int fd, int level, int name, void *value, void *size)',
);

const F_GETFL = 3;
const F_SETFL = 4;
const F_DUPFD_CLOEXEC = 1030;
const SOL_SOCKET = 1;
const SO_SNDBUF = 7;
const IPPROTO_TCP = 6;
const TCP_USER_TIMEOUT = 18;
const SO_SNDBUFFORCE = 32;

/** As `duplicate`, and the new number does not survive exec. */
export const duplicateCloexec = (fd: number): number => fcntl(fd, F_DUPFD_CLOEXEC, 0);

/** Whether calls on the open file wait; true for every number that it has. */
export const setBlocking = (fd: number, blocking: boolean): number => {
  const flags = fcntl(fd, F_GETFL, 0);
  if (flags < 0) return flags;
  return fcntl(fd, F_SETFL, blocking ? flags & ~constants.O_NONBLOCK : flags | constants.O_NONBLOCK);
};

/**
 * Memory of the kernel for what is sent and not acknowledged: past `net.core.wmem_max` if the process has CAP_NET_ADMIN. What
 * it is then, which is twice as much as was asked for (socket(7)), or -errno.
 */
export const setSendBuffer = (fd: number, bytes: number): number => {
  const value = Int32Array.of(bytes);
  if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, value, value.byteLength) < 0)
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, value, value.byteLength);
  const result = getsockopt(fd, SOL_SOCKET, SO_SNDBUF, value, Int32Array.of(value.byteLength));
  return result < 0 ? result : value[0]!;
};

/** For how long what was sent may stay unacknowledged by the peer's kernel before the connection breaks (tcp(7)). */
export const setUserTimeout = (fd: number, milliseconds: number): number => {
  const value = Int32Array.of(milliseconds);
  return setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, value, value.byteLength);
};

/** The same number on every architecture since Linux 5.6. */
const SYS_OPENAT2 = 437;
const OPEN_HOW_BYTES = 24;

/** Opens with `RESOLVE_*` restrictions (openat2(2)). `mode` must be 0 unless a file is created. */
export const openat2 = (
  dir: number,
  path: Uint8Array,
  flags: number,
  mode: number,
  resolve: number,
): number => {
  const how = BigUint64Array.of(BigInt(flags), BigInt(mode), BigInt(resolve));
  return syscall4(SYS_OPENAT2, dir, path, how, OPEN_HOW_BYTES);
};

const RLIMIT_NOFILE = 7;
/** Above this the kernel's default `fs.nr_open` refuses. */
const OPEN_FILES_MAX = 1_048_576n;

/** Raises the process's limit of open files as far as it may; returns the limit in force. */
export const raiseOpenFilesLimit = (): number => {
  const limits = new BigUint64Array(2);
  getrlimit(RLIMIT_NOFILE, limits);
  const hard = limits[1]!;
  if (
    hard < OPEN_FILES_MAX &&
    setrlimit(RLIMIT_NOFILE, BigUint64Array.of(OPEN_FILES_MAX, OPEN_FILES_MAX)) < 0
  )
    setrlimit(RLIMIT_NOFILE, BigUint64Array.of(hard, hard));
  else if (hard >= OPEN_FILES_MAX) setrlimit(RLIMIT_NOFILE, BigUint64Array.of(OPEN_FILES_MAX, hard));
  getrlimit(RLIMIT_NOFILE, limits);
  return Number(limits[0]! > OPEN_FILES_MAX ? OPEN_FILES_MAX : limits[0]!);
};

/** As pread(2), which is short at the end of the file only: what stops it earlier is its result. */
export const readWhole = (fd: number, address: number, length: number, offset: number): number => {
  for (let done = 0; ; ) {
    const count = preadTo(fd, address + done, length - done, offset + done);
    if (count < 0) return -lastErrno();
    done += count;
    if (count === 0 || done === length) return done;
  }
};

const PROC_SELF_FD = Buffer.from('/proc/self/fd/');

/**
 * `/proc/self/fd/N` as bytes: names the inode behind a descriptor, O_PATH ones included, whatever its path is
 * now and whatever has been mounted over it. Each call gives a new array.
 */
export const descriptorPath = (fd: number): Uint8Array => {
  const path = Buffer.alloc(PROC_SELF_FD.length + 11);
  PROC_SELF_FD.copy(path);
  path.write(String(fd), PROC_SELF_FD.length, 'latin1');
  return path;
};

/** Another open file of what `fd` has open, buffered, as a rule for writing and flushing: its descriptor, or -errno. */
export const openAgain = (fd: number, access = O_WRONLY): number =>
  openat(AT_FDCWD, descriptorPath(fd), access | O_CLOEXEC, 0);
