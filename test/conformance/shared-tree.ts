/**
 * Random changes to a tree that several processes change at once. Any of them may meet what another has just done, so
 * that many answers are right, but not all; and each block of a file comes from one write as a whole.
 */
import { readFileSync } from 'node:fs';
import { errnoName, libc } from '../posix/libc.js';
import { O_CREAT, O_DIRECTORY, O_RDONLY, O_RDWR, O_TRUNC } from '../posix/workbench.js';
import type { Random } from '../support/random.js';

const AT_FDCWD = -100;
const BLOCK = 4096;
const BLOCKS_MAX = 16;
/** All processes write the same block of this file for so long, then the next: the last writes of each block meet. */
const HOT_FILE = 'hot';
const HOT_BLOCKS = 2048;
const HOT_MS = 20;
const HOT_WRITES = 8;
const NAMES = ['a', 'b', 'c', 'd', 'e'];
const EXCHANGE = 2;
const KEEP_SIZE = 1;
const PUNCH_HOLE = 2;
/** What a call may meet when others change the same names. */
const RACE_ANSWERS: ReadonlySet<string> = new Set([
  'ENOENT',
  'EEXIST',
  'ENOTDIR',
  'EISDIR',
  'ENOTEMPTY',
  'EINVAL',
  'ELOOP',
  'EPERM',
]);

const cPath = (path: string): Buffer => Buffer.from(`${path}\0`);

export interface SharedTreeOptions {
  readonly root: string;
  readonly random: Random;
  /** Sets this process's blocks apart. */
  readonly stamp: number;
  readonly links: boolean;
  readonly holes: boolean;
}

export class SharedTree {
  readonly #options: SharedTreeOptions;
  readonly #block = Buffer.alloc(BLOCK);
  #written = 0;
  /** How often each answer came. */
  readonly answers: Record<string, number> = {};

  constructor(options: SharedTreeOptions) {
    this.#options = options;
  }

  step(): void {
    const { random, links } = this.#options;
    const kinds: readonly (() => void)[] = [
      () => this.#say('mkdir', libc.mkdir(this.#path(), 0o755)),
      () => this.#say('rmdir', libc.rmdir(this.#path())),
      () => this.#say('unlink', libc.unlink(this.#path())),
      () => this.#say('symlink', libc.symlink(cPath(random.pick(NAMES)), this.#path())),
      () => this.#say('rename', libc.rename(this.#path(), this.#path())),
      () => this.#say('rename', libc.rename(this.#path(), this.#path())),
      () => this.#say('chmod', libc.chmod(this.#path(), 0o700 | random.below(0o100))),
      () => this.#say('truncate', libc.truncate(this.#path(), random.below(BLOCKS_MAX) * BLOCK)),
      () => this.#say('setxattr', libc.lsetxattr(this.#path(), cPath('trusted.x'), cPath('value'), 6, 0)),
      () => this.#file(),
      () => this.#file(),
      () => this.#file(),
      () => this.#list(),
      () => this.#hot(),
      () => this.#hot(),
      ...(links
        ? [
            () => this.#say('link', libc.linkat(AT_FDCWD, this.#path(), AT_FDCWD, this.#path(), 0)),
            () =>
              this.#say('exchange', libc.renameat2(AT_FDCWD, this.#path(), AT_FDCWD, this.#path(), EXCHANGE)),
          ]
        : []),
    ];
    random.pick(kinds)();
  }

  /** A random place, one to three folders deep. */
  #path(): Buffer {
    const { random, root } = this.#options;
    const depth = 1 + random.below(3);
    return cPath(`${root}/${Array.from({ length: depth }, () => random.pick(NAMES)).join('/')}`);
  }

  #file(): void {
    const { random, holes } = this.#options;
    const flags = O_RDWR | (random.chance(60) ? O_CREAT : 0) | (random.chance(10) ? O_TRUNC : 0);
    const fd = libc.openat(AT_FDCWD, this.#path(), flags, 0o644);
    this.#say('open', Math.min(fd, 0));
    if (fd < 0) return;
    try {
      for (let i = random.below(6); i > 0; i--) {
        const offset = random.below(BLOCKS_MAX) * BLOCK;
        const choice = random.below(10);
        if (choice < 5) this.#whole('write', libc.pwrite(fd, this.#nextBlock(), BLOCK, offset), [BLOCK]);
        else if (choice < 8) this.#read(fd, offset);
        else if (choice === 8) this.#whole('ftruncate', libc.ftruncate(fd, offset), [0]);
        else if (holes) this.#whole('punch', libc.fallocate(fd, PUNCH_HOLE | KEEP_SIZE, offset, BLOCK), [0]);
      }
    } finally {
      this.#whole('close', libc.close(fd), [0]);
    }
  }

  #hot(): void {
    const fd = libc.openat(AT_FDCWD, cPath(`${this.#options.root}/${HOT_FILE}`), O_RDWR | O_CREAT, 0o644);
    this.#whole('open', Math.min(fd, 0), [0]);
    for (let i = 0; i < HOT_WRITES; i++) {
      const block = Math.floor((performance.timeOrigin + performance.now()) / HOT_MS) % HOT_BLOCKS;
      this.#whole('write', libc.pwrite(fd, this.#nextBlock(), BLOCK, block * BLOCK), [BLOCK]);
    }
    this.#whole('close', libc.close(fd), [0]);
  }

  /** Files have whole blocks at all times, and nothing that comes after them is read. */
  #read(fd: number, offset: number): void {
    this.#whole('read', libc.pread(fd, Buffer.alloc(BLOCK), BLOCK, offset), [0, BLOCK]);
  }

  #nextBlock(): Buffer {
    const { stamp } = this.#options;
    const word = ((stamp << 24) | (this.#written++ & 0xff_ffff)) >>> 0;
    for (let at = 0; at < BLOCK; at += 4) this.#block.writeUInt32LE(word, at);
    return this.#block;
  }

  #list(): void {
    const fd = libc.openat(AT_FDCWD, this.#path(), O_RDONLY | O_DIRECTORY, 0);
    this.#say('open a folder', Math.min(fd, 0));
    if (fd < 0) return;
    const length = libc.getdents64(fd, Buffer.alloc(32_768), 32_768);
    // A folder that was removed meanwhile.
    if (length < 0) this.#say('list', length);
    libc.close(fd);
  }

  #say(what: string, result: number): void {
    const answer = result < 0 ? errnoName(-result) : 'done';
    this.answers[answer] = (this.answers[answer] ?? 0) + 1;
    if (result < 0 && !RACE_ANSWERS.has(answer)) throw new Error(`${what} answers ${answer}`);
  }

  /** Calls on an open file: nobody can be in their way. */
  #whole(what: string, result: number, wanted: readonly number[]): void {
    if (wanted.includes(result)) return;
    throw new Error(`${what} on an open file answers ${result < 0 ? errnoName(-result) : result}`);
  }
}

/** What is wrong with a file that only such processes have written: a block that mixes two writes, a torn size. */
export const tornBlock = (path: string): string => {
  const bytes = readFileSync(path);
  if (bytes.length % BLOCK !== 0) return `${path} has ${bytes.length} bytes`;
  for (let at = 0; at < bytes.length; at += BLOCK) {
    const block = bytes.subarray(at, at + BLOCK);
    if (!block.subarray(4).equals(block.subarray(0, BLOCK - 4)))
      return `${path}: the block at ${at} mixes two writes`;
  }
  return '';
};
