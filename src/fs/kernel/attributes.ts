import type { StatBuffer } from '../stat-buffer.js';
import { ATTRIBUTES_BYTES } from './protocol.js';

/** How long the kernel may believe names and attributes, seconds: the window for changes behind the mount's back. */
export const VALID_SECONDS = 1;

const HIGH_MINOR = 0xff;

/** `fuse_attr.rdev` is the kernel's 32-bit device encoding (include/linux/kdev_t.h, new_encode_dev). */
const encodeDevice = (major: number, minor: number): number =>
  ((minor & HIGH_MINOR) | (major << 8) | ((minor & ~HIGH_MINOR) << 12)) >>> 0;

/** Writes a `fuse_attr` (22 words) at word `at`. */
const putAttributes = (out: Uint32Array, at: number, stat: StatBuffer): void => {
  const s = stat.words;
  out[at] = s[8]!; // ino
  out[at + 1] = s[9]!;
  out[at + 2] = s[10]!; // size
  out[at + 3] = s[11]!;
  out[at + 4] = s[12]!; // blocks
  out[at + 5] = s[13]!;
  out[at + 6] = s[16]!; // atime
  out[at + 7] = s[17]!;
  out[at + 8] = s[28]!; // mtime
  out[at + 9] = s[29]!;
  out[at + 10] = s[24]!; // ctime
  out[at + 11] = s[25]!;
  out[at + 12] = s[18]!; // nanoseconds
  out[at + 13] = s[30]!;
  out[at + 14] = s[26]!;
  out[at + 15] = stat.mode;
  out[at + 16] = s[4]!; // nlink
  out[at + 17] = s[5]!; // uid
  out[at + 18] = s[6]!; // gid
  out[at + 19] = encodeDevice(s[32]!, s[33]!);
  out[at + 20] = s[1]!; // blksize
  out[at + 21] = 0;
};

/** Writes a `fuse_attr_out` at word `at`; returns its length in bytes. */
export const putAttributesReply = (
  out: Uint32Array,
  at: number,
  stat: StatBuffer,
  validSeconds: number,
): number => {
  out[at] = validSeconds;
  out[at + 1] = 0;
  out[at + 2] = 0; // nanoseconds
  out[at + 3] = 0;
  putAttributes(out, at + 4, stat);
  return 16 + ATTRIBUTES_BYTES;
};

/** Writes a `fuse_entry_out` at word `at`. */
export const putEntry = (
  out: Uint32Array,
  at: number,
  nodeId: number,
  stat: StatBuffer,
  validSeconds: number,
): void => {
  out[at] = nodeId % 2 ** 32;
  out[at + 1] = nodeId / 2 ** 32;
  out[at + 2] = 0; // generation
  out[at + 3] = 0;
  out[at + 4] = validSeconds; // of the name
  out[at + 5] = 0;
  out[at + 6] = validSeconds; // of the attributes
  out[at + 7] = 0;
  out[at + 8] = 0; // nanoseconds
  out[at + 9] = 0;
  putAttributes(out, at + 10, stat);
};
