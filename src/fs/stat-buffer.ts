import { AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW, EMPTY_PATH, fstatvfs, S_IFMT, statx } from './libc.js';

const STATX_BASIC_STATS = 0x7ff;
const STATX_BTIME = 0x800;
export const STATX_BYTES = 256;
const HIGH = 2 ** 32;
/** Inode numbers from here on do not fit a double exactly. */
const INODE_HIGH_EXACT = 2 ** 21;

/** An inode number: a number where that is exact, else a bigint. Good as a Map key either way. */
export type InodeNumber = number | bigint;

/** A reusable `struct statx` (include/uapi/linux/stat.h), the same on all architectures. */
export class StatBuffer {
  readonly bytes = Buffer.alloc(STATX_BYTES);
  readonly words = new Uint32Array(this.bytes.buffer, this.bytes.byteOffset, STATX_BYTES / 4);

  /** Reads the attributes behind a descriptor, O_PATH ones included; 0 or -errno. */
  ofDescriptor(fd: number): number {
    return statx(fd, EMPTY_PATH, AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_BTIME, this.bytes);
  }

  /** Reads the attributes of the entry `name` (ends in NUL) in `dir`, not following a symlink; 0 or -errno. */
  ofEntry(dir: number, name: Uint8Array): number {
    return statx(dir, name, AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS, this.bytes);
  }

  get blockSize(): number {
    return this.words[1]!;
  }
  get links(): number {
    return this.words[4]!;
  }
  get uid(): number {
    return this.words[5]!;
  }
  get gid(): number {
    return this.words[6]!;
  }
  /** File type and permission bits. */
  get mode(): number {
    return this.words[7]! & 0xffff;
  }
  get type(): number {
    return this.words[7]! & S_IFMT;
  }
  get inode(): InodeNumber {
    const high = this.words[9]!;
    return high < INODE_HIGH_EXACT
      ? high * HIGH + this.words[8]!
      : (BigInt(high) << 32n) | BigInt(this.words[8]!);
  }
  get size(): number {
    return this.words[11]! * HIGH + this.words[10]!;
  }
  /** In units of 512 bytes. */
  get blocks(): number {
    return this.words[13]! * HIGH + this.words[12]!;
  }
  get device(): number {
    return this.words[34]! * HIGH + this.words[35]!;
  }
}

/** A reusable `struct statvfs` of 64-bit glibc. */
export class StatVfsBuffer {
  readonly words = new BigUint64Array(16);

  ofDescriptor(fd: number): number {
    return fstatvfs(fd, this.words);
  }
  get fragmentSize(): number {
    return Number(this.words[1]!);
  }
  /** Fragments free to root. */
  get freeToRoot(): number {
    return Number(this.words[3]!);
  }
}
