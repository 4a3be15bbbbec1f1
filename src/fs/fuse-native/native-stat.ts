import type { StatBuffer } from '../stat-buffer.js';

/** Attributes as fuse-native packs them: times in milliseconds, devices in 32 bits. */
export interface NativeStat {
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly size: number;
  readonly dev: number;
  readonly nlink: number;
  readonly ino: number;
  readonly rdev: number;
  readonly blksize: number;
  readonly blocks: number;
  readonly atime: number;
  readonly mtime: number;
  readonly ctime: number;
}

const NANOSECONDS_PER_MILLI = 1_000_000;
const MILLIS_PER_SECOND = 1000;

/** Word offsets of the timestamps in `struct statx`: seconds low, seconds high, nanoseconds. */
const ATIME = 16;
const CTIME = 24;
const MTIME = 28;
const RDEV_MAJOR = 32;
const RDEV_MINOR = 33;

/** Milliseconds since the epoch. fuse-native has no times before it: those become 0. */
const millisAt = (words: Uint32Array, at: number): number => {
  const seconds = (words[at + 1]! | 0) * 2 ** 32 + words[at]!;
  return Math.max(0, seconds * MILLIS_PER_SECOND + Math.floor(words[at + 2]! / NANOSECONDS_PER_MILLI));
};

/** glibc's `dev_t` for majors below 4096, its low 32 bits. */
const deviceOf = (major: number, minor: number): number =>
  ((minor & 0xff) | ((major & 0xfff) << 8) | ((minor & ~0xff) << 12)) >>> 0;

export const nativeStat = (stat: StatBuffer): NativeStat => ({
  mode: stat.mode,
  uid: stat.uid,
  gid: stat.gid,
  size: stat.size,
  dev: 0,
  nlink: stat.links,
  // 32 bits are what fuse-native keeps.
  ino: Number(BigInt.asUintN(32, BigInt(stat.inode))),
  rdev: deviceOf(stat.words[RDEV_MAJOR]!, stat.words[RDEV_MINOR]!),
  blksize: stat.blockSize,
  blocks: stat.blocks,
  atime: millisAt(stat.words, ATIME),
  mtime: millisAt(stat.words, MTIME),
  ctime: millisAt(stat.words, CTIME),
});
