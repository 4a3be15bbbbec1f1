import { readdirSync } from 'node:fs';
import type Fuse from 'fuse-native';
import { Errno } from '../errno.js';
import {
  AT_REMOVEDIR,
  AT_SYMLINK_NOFOLLOW,
  chmod,
  close,
  cString,
  fchownat,
  fsync,
  getxattr,
  linkat,
  listxattr,
  mkdirat,
  mknodat,
  O_CLOEXEC,
  O_DIRECTORY,
  O_RDONLY,
  openat,
  readlinkat,
  removexattr,
  renameat2,
  setxattr,
  symlinkat,
  unlinkat,
  utimensat,
} from '../libc.js';
import { StatVfsBuffer } from '../stat-buffer.js';
import { type BackingTree, EILSEQ, isHiddenXattr } from './backing-tree.js';
import { type NativeStat, nativeStat } from './native-stat.js';

type Answer = (result: number) => void;
type AnswerWith<T> = (result: number, value?: T) => void;

const PERMISSIONS = 0o7777;
const LINK_TARGET_BYTES_MAX = 4096;
const XATTR_BYTES_MAX = 65_536;
const MILLIS_PER_SECOND = 1000;
const NANOSECONDS_PER_MILLI = 1_000_000;

const statOf = (tree: BackingTree, path: string): NativeStat | number => {
  const stat = tree.stat(path);
  return typeof stat === 'number' ? stat : nativeStat(stat);
};

const namesIn = (tree: BackingTree, path: string): string[] | number => {
  if (tree.relative(path) === null) return -EILSEQ;
  try {
    return ['.', '..', ...readdirSync(`/proc/self/fd/${tree.root}${path}`)];
  } catch (error) {
    return (error as NodeJS.ErrnoException).errno ?? -Errno.EIO;
  }
};

/** Creating, finding, renaming, linking and removing names. */
export const nameOperations = (tree: BackingTree): Fuse.Operations => ({
  readdir: (path: string, answer: AnswerWith<string[]>) => {
    const names = namesIn(tree, path);
    if (typeof names === 'number') answer(names);
    else answer(0, names);
  },
  readlink: (path: string, answer: AnswerWith<string>) => {
    const target = Buffer.alloc(LINK_TARGET_BYTES_MAX);
    const length = tree.at(path, (relative) => readlinkat(tree.root, relative, target, target.length));
    if (length < 0) answer(length);
    else answer(0, target.toString('utf8', 0, length));
  },
  mkdir: (path: string, mode: number, answer: Answer) =>
    answer(tree.at(path, (relative) => mkdirat(tree.root, relative, mode & PERMISSIONS))),
  rmdir: (path: string, answer: Answer) =>
    answer(tree.at(path, (relative) => unlinkat(tree.root, relative, AT_REMOVEDIR))),
  mknod: (path: string, mode: number, device: number, answer: Answer) =>
    answer(tree.at(path, (relative) => mknodat(tree.root, relative, mode, device))),
  symlink: (target: string, path: string, answer: Answer) =>
    answer(tree.at(path, (relative) => symlinkat(cString(target), tree.root, relative))),
  link: (from: string, to: string, answer: Answer) =>
    answer(
      tree.at(from, (source) => tree.at(to, (target) => linkat(tree.root, source, tree.root, target, 0))),
    ),
  unlink: (path: string, answer: Answer) =>
    answer(
      tree.isPinned(path) ? -Errno.EBUSY : tree.at(path, (relative) => unlinkat(tree.root, relative, 0)),
    ),
  rename: (from: string, to: string, answer: Answer) =>
    answer(
      tree.isPinned(from) || tree.isPinned(to)
        ? -Errno.EBUSY
        : tree.at(from, (source) =>
            tree.at(to, (target) => renameat2(tree.root, source, tree.root, target, 0)),
          ),
    ),
});

/** `modificationMillis`: of the request being served, or undefined (see RequestState). */
export const attributeOperations = (
  tree: BackingTree,
  modificationMillis: () => number | undefined,
): Fuse.Operations => ({
  getattr: (path: string, answer: AnswerWith<NativeStat>) => {
    const stat = statOf(tree, path);
    if (typeof stat === 'number') answer(stat);
    else answer(0, stat);
  },
  chmod: (path: string, mode: number, answer: Answer) =>
    answer(tree.throughDescriptor(path, (descriptor) => chmod(descriptor, mode & PERMISSIONS))),
  chown: (path: string, uid: number, gid: number, answer: Answer) =>
    answer(tree.at(path, (relative) => fchownat(tree.root, relative, uid, gid, AT_SYMLINK_NOFOLLOW))),
  utimens: (path: string, access: number, modification: number, answer: Answer) => {
    const times = new BigInt64Array(4);
    [access, modificationMillis() ?? modification].forEach((millis, i) => {
      times[i * 2] = BigInt(Math.floor(millis / MILLIS_PER_SECOND));
      times[i * 2 + 1] = BigInt((millis % MILLIS_PER_SECOND) * NANOSECONDS_PER_MILLI);
    });
    answer(tree.at(path, (relative) => utimensat(tree.root, relative, times, AT_SYMLINK_NOFOLLOW)));
  },
  statfs: (_path: string, answer: AnswerWith<object>) => {
    const stat = new StatVfsBuffer();
    const result = stat.ofDescriptor(tree.root);
    const [bsize, frsize, blocks, bfree, bavail, files, ffree, favail, , flag, namemax] = Array.from(
      stat.words,
      Number,
    );
    if (result < 0) answer(result);
    else answer(0, { bsize, frsize, blocks, bfree, bavail, files, ffree, favail, flag, namemax });
  },
  fsyncdir: (path: string, _datasync: boolean, _handle: number, answer: Answer) =>
    answer(
      tree.at(path, (relative) => {
        const fd = openat(tree.root, relative, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
        if (fd < 0) return fd;
        const result = fsync(fd);
        close(fd);
        return result;
      }),
    ),
});

const withoutHidden = (list: Buffer): Buffer => {
  const names = list.toString('latin1').split('\0');
  return Buffer.from(names.filter((name) => !isHiddenXattr(name)).join('\0'), 'latin1');
};

export const xattrOperations = (tree: BackingTree): Fuse.Operations => ({
  setxattr: (path: string, name: string, value: Buffer, _position: number, flags: number, answer: Answer) =>
    answer(
      isHiddenXattr(name)
        ? -Errno.EPERM
        : tree.throughDescriptor(path, (descriptor) =>
            setxattr(descriptor, cString(name), value, value.length, flags),
          ),
    ),
  // FuseSession compares the value with the caller's room.
  getxattr: (path: string, name: string, answer: AnswerWith<Uint8Array>) => {
    if (isHiddenXattr(name)) return answer(-Errno.ENODATA);
    const value = Buffer.alloc(XATTR_BYTES_MAX);
    const length = tree.throughDescriptor(path, (descriptor) =>
      getxattr(descriptor, cString(name), value, value.length),
    );
    if (length < 0) answer(length);
    else answer(0, value.subarray(0, length));
  },
  listxattr: (path: string, answer: AnswerWith<Uint8Array>) => {
    const list = Buffer.alloc(XATTR_BYTES_MAX);
    const length = tree.throughDescriptor(path, (descriptor) => listxattr(descriptor, list, list.length));
    if (length < 0) answer(length);
    else answer(0, withoutHidden(list.subarray(0, length)));
  },
  removexattr: (path: string, name: string, answer: Answer) =>
    answer(
      isHiddenXattr(name)
        ? -Errno.EPERM
        : tree.throughDescriptor(path, (descriptor) => removexattr(descriptor, cString(name))),
    ),
});
