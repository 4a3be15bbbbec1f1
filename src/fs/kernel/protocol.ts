/**
 * The FUSE kernel protocol, version 7 (include/uapi/linux/fuse.h): numbers and layouts. Offsets whose name ends in
 * `_WORD` count 32-bit words from the start of the request; 64-bit fields are read as two words, low word first.
 * Integers are in host order, little-endian on x64 and arm64.
 */
export const Opcode = {
  LOOKUP: 1,
  FORGET: 2,
  GETATTR: 3,
  SETATTR: 4,
  READLINK: 5,
  SYMLINK: 6,
  MKNOD: 8,
  MKDIR: 9,
  UNLINK: 10,
  RMDIR: 11,
  RENAME: 12,
  LINK: 13,
  OPEN: 14,
  READ: 15,
  WRITE: 16,
  STATFS: 17,
  RELEASE: 18,
  FSYNC: 20,
  SETXATTR: 21,
  GETXATTR: 22,
  LISTXATTR: 23,
  REMOVEXATTR: 24,
  FLUSH: 25,
  INIT: 26,
  OPENDIR: 27,
  READDIR: 28,
  RELEASEDIR: 29,
  FSYNCDIR: 30,
  CREATE: 35,
  INTERRUPT: 36,
  DESTROY: 38,
  BATCH_FORGET: 42,
  FALLOCATE: 43,
  READDIRPLUS: 44,
  RENAME2: 45,
  LSEEK: 46,
  TMPFILE: 51,
  STATX: 52,
} as const;

export const PROTOCOL_MAJOR = 7;
/** What is spoken: every structure used here has its final layout since then. */
export const PROTOCOL_MINOR = 41;
/** Linux 5.14: the first with FUSE_SETXATTR_EXT, whose layout is assumed; openat2 (5.6) is older. */
export const PROTOCOL_MINOR_MIN = 34;

export const ROOT_ID = 1;

/** Open flags of a request, which the kernel also sets for RWF_DSYNC and RWF_SYNC (asm-generic/fcntl.h). */
export const REQUEST_DSYNC = 0o10000;
export const REQUEST_SYNC = 0o4000000;

export const IN_HEADER_BYTES = 40;
export const OUT_HEADER_BYTES = 16;
/** The argument of a request begins here. */
export const ARGUMENT_WORD = IN_HEADER_BYTES / 4;
/** in-header and `fuse_write_in`: where the payload of a WRITE begins. */
export const WRITE_PAYLOAD_OFFSET = 80;
export const ATTRIBUTES_BYTES = 88;
export const ENTRY_BYTES = 40 + ATTRIBUTES_BYTES;
export const BATCH_FORGET_HEADER_BYTES = IN_HEADER_BYTES + 8;
export const FORGET_ONE_BYTES = 16;

/**
 * Of one READ or WRITE at most. The kernel would take 256 (fs.fuse.max_pages_limit): no faster, and whoever shares the
 * mount waits for four times as long behind one request (docs/PERFORMANCE.md).
 */
export const TRANSFER_PAGES_MAX = 64;
export const TRANSFER_BYTES_MAX = TRANSFER_PAGES_MAX * 4096;

export const InitFlag = {
  ASYNC_READ: 1 << 0,
  BIG_WRITES: 1 << 5,
  DONT_MASK: 1 << 6,
  DO_READDIRPLUS: 1 << 13,
  READDIRPLUS_AUTO: 1 << 14,
  ASYNC_DIO: 1 << 15,
  PARALLEL_DIROPS: 1 << 18,
  POSIX_ACL: 1 << 20,
  MAX_PAGES: 1 << 22,
  CACHE_SYMLINKS: 1 << 23,
  HANDLE_KILLPRIV_V2: 1 << 28,
  SETXATTR_EXT: 1 << 29,
  INIT_EXT: 1 << 30,
} as const;

/** Bits 32 to 63 of the flags, in `flags2`. */
export const InitFlag2 = { DIRECT_IO_ALLOW_MMAP: 1 << 4, PASSTHROUGH: 1 << 5 } as const;

export const OpenReplyFlag = {
  DIRECT_IO: 1 << 0,
  KEEP_CACHE: 1 << 1,
  NOFLUSH: 1 << 5,
  PARALLEL_DIRECT_WRITES: 1 << 6,
  PASSTHROUGH: 1 << 7,
} as const;

export const SetattrValid = {
  MODE: 1 << 0,
  UID: 1 << 1,
  GID: 1 << 2,
  SIZE: 1 << 3,
  ATIME: 1 << 4,
  MTIME: 1 << 5,
  FH: 1 << 6,
  ATIME_NOW: 1 << 7,
  MTIME_NOW: 1 << 8,
  KILL_SUIDGID: 1 << 11,
} as const;

export const GETATTR_FH = 1;
export const WRITE_CACHE = 1;
export const WRITE_KILL_SUIDGID = 4;
export const FSYNC_DATASYNC = 1;
export const SETXATTR_ACL_KILL_SGID = 1;

const HIGH = 2 ** 32;
/** A 64-bit field, exact to 2^53. */
export const u64 = (words: Uint32Array, at: number): number => words[at + 1]! * HIGH + words[at]!;
export const putU64 = (words: Uint32Array, at: number, value: number): void => {
  words[at] = value % HIGH;
  words[at + 1] = value / HIGH;
};
