/** MKNOD, MKDIR, SYMLINK, LINK, UNLINK, RMDIR, RENAME, RENAME2. */
import { Errno } from '../errno.js';
import {
  AT_EMPTY_PATH,
  AT_FDCWD,
  AT_REMOVEDIR,
  AT_SYMLINK_FOLLOW,
  AT_SYMLINK_NOFOLLOW,
  chmod,
  descriptorPath,
  EMPTY_PATH,
  fchownat,
  linkat,
  mkdirat,
  mknodat,
  renameat2,
  S_IFDIR,
  S_ISGID,
  S_ISUID,
  symlinkat,
  umask,
  unlinkat,
} from '../libc.js';
import { StatBuffer } from '../stat-buffer.js';
import { replyEntry } from './attribute-operations.js';
import type { Namespace, Operation } from './namespace.js';
import { lookUp, nodeOf } from './namespace.js';
import type { RequestView } from './request.js';

const KEEP_ID = 0xffffffff;

/** Runs `create` under the caller's umask: the file system below applies it unless a default ACL says otherwise. */
export const underUmask = (mask: number, create: () => number): number => {
  umask(mask & 0o777);
  const result = create();
  umask(0);
  return result;
};

const parentStat = new StatBuffer();

/**
 * The group for a new entry of a directory: the caller's, or `KEEP_ID` where a set-group-ID directory has
 * given its own.
 */
const groupFor = (parent: number, request: RequestView): number =>
  parentStat.ofDescriptor(parent) === 0 && (parentStat.mode & S_ISGID) !== 0 ? KEEP_ID : request.gid;

/**
 * Gives what was just created, behind `fd` (O_PATH or not), to the caller. `mode`: what the caller asked for,
 * because a change of owner drops set-user-ID and set-group-ID.
 */
export const giveToCaller = (parent: number, fd: number, request: RequestView, mode: number): number => {
  if (request.uid === 0 && request.gid === 0) return 0;
  const result = fchownat(fd, EMPTY_PATH, request.uid, groupFor(parent, request), AT_EMPTY_PATH);
  if (result < 0 || (mode & (S_ISUID | S_ISGID)) === 0) return result;
  const stat = new StatBuffer();
  if (stat.ofDescriptor(fd) < 0 || stat.type === S_IFDIR) return 0;
  return chmod(descriptorPath(fd), (stat.mode & 0o777) | (mode & 0o7000));
};

/** Finds the entry just created, gives it to the caller and replies; removes it again when that fails. */
const finishCreation = (
  namespace: Namespace,
  request: RequestView,
  parent: number,
  name: Uint8Array,
  mode: number,
): number => {
  const owned =
    request.uid === 0 && request.gid === 0
      ? 0
      : fchownat(parent, name, request.uid, groupFor(parent, request), AT_SYMLINK_NOFOLLOW);
  const node = owned < 0 ? owned : lookUp(namespace, request.nodeId, parent, name);
  if (typeof node === 'number') {
    unlinkat(parent, name, (mode & S_IFDIR) !== 0 ? AT_REMOVEDIR : 0);
    return node;
  }
  const { stat } = namespace;
  const bits = mode & (S_ISUID | S_ISGID);
  if (bits !== 0 && stat.type !== S_IFDIR && (stat.mode & bits) !== bits) {
    chmod(descriptorPath(node.fd), (stat.mode & 0o777) | (mode & 0o7000));
    stat.ofDescriptor(node.fd);
  }
  return replyEntry(namespace, node);
};

export const makeNode: Operation = (namespace, request) => {
  const { fd } = nodeOf(namespace, request.nodeId);
  const name = request.name(16);
  const mode = request.u32(10);
  const result = underUmask(request.u32(12), () => mknodat(fd, name, mode, request.u32(11)));
  return result < 0 ? result : finishCreation(namespace, request, fd, name, mode);
};

export const makeDirectory: Operation = (namespace, request) => {
  const { fd } = nodeOf(namespace, request.nodeId);
  const name = request.name(8);
  const mode = request.u32(10) & 0o7777;
  const result = underUmask(request.u32(11), () => mkdirat(fd, name, mode));
  return result < 0 ? result : finishCreation(namespace, request, fd, name, mode | S_IFDIR);
};

export const makeSymlink: Operation = (namespace, request) => {
  const { fd } = nodeOf(namespace, request.nodeId);
  const name = request.name(0);
  const result = symlinkat(request.name(name.length), fd, name);
  return result < 0 ? result : finishCreation(namespace, request, fd, name, 0);
};

export const makeLink: Operation = (namespace, request) => {
  const { fd } = nodeOf(namespace, request.nodeId);
  const target = nodeOf(namespace, request.u64(10));
  const name = request.name(8);
  const result = linkat(AT_FDCWD, descriptorPath(target.fd), fd, name, AT_SYMLINK_FOLLOW);
  if (result < 0) return result;
  const node = lookUp(namespace, request.nodeId, fd, name);
  return typeof node === 'number' ? node : replyEntry(namespace, node);
};

/** Whether the entry is an image held for a migration, whose names must stay. */
const isPinned = ({ registry, stat }: Namespace, parent: number, name: Uint8Array): boolean =>
  registry.anyPinned && stat.ofEntry(parent, name) === 0 && registry.isPinned(stat.device, stat.inode);

export const unlink: Operation = (namespace, request) => {
  const { fd } = nodeOf(namespace, request.nodeId);
  const name = request.name(0);
  return isPinned(namespace, fd, name) ? -Errno.EBUSY : unlinkat(fd, name, 0);
};

export const removeDirectory: Operation = (namespace, request) =>
  unlinkat(nodeOf(namespace, request.nodeId).fd, request.name(0), AT_REMOVEDIR);

const renameEntry = (namespace: Namespace, request: RequestView, flags: number, namesAt: number): number => {
  const { fd } = nodeOf(namespace, request.nodeId);
  const target = nodeOf(namespace, request.u64(10));
  const name = request.name(namesAt);
  const newName = request.name(namesAt + name.length);
  if (isPinned(namespace, fd, name) || isPinned(namespace, target.fd, newName)) return -Errno.EBUSY;
  return renameat2(fd, name, target.fd, newName, flags);
};

export const rename: Operation = (namespace, request) => renameEntry(namespace, request, 0, 8);
export const renameWithFlags: Operation = (namespace, request) =>
  renameEntry(namespace, request, request.u32(12), 16);
