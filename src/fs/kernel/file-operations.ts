/** OPEN, CREATE, TMPFILE, RELEASE: handles of regular files. */
import { constants } from 'node:fs';
import { systemClock } from '../../leaves/clock.js';
import { Errno } from '../errno.js';
import { NO_SLOT } from '../image-registry.js';
import {
  AT_FDCWD,
  close,
  cString,
  descriptorPath,
  O_ACCMODE,
  O_CLOEXEC,
  O_CREAT,
  O_DIRECT,
  O_EXCL,
  O_NOFOLLOW,
  O_PATH,
  O_RDONLY,
  O_TMPFILE,
  openat,
  S_ISGID,
  S_ISUID,
  unlinkat,
} from '../libc.js';
import { replyEntry } from './attribute-operations.js';
import { contentStamp } from './content-stamp.js';
import { giveToCaller, underUmask } from './entry-operations.js';
import { HANDLE_CACHED, HANDLE_DIRECT, HANDLE_ODIRECT, HANDLE_PASSED, HANDLE_SYNCS } from './handle-table.js';
import type { Namespace, Operation } from './namespace.js';
import { adoptDescriptor, descriptorsUsedUp, nodeOf, outOfDescriptors } from './namespace.js';
import type { Node } from './node-table.js';
import { ENTRY_BYTES, OpenReplyFlag, putU64 } from './protocol.js';
import { NO_REPLY } from './reply.js';
import type { RequestView } from './request.js';

/**
 * What the backing file is opened with. O_APPEND is left out: the kernel computes the offsets, and pwrite on an
 * O_APPEND descriptor would ignore them. O_TRUNC comes as a SETATTR of its own.
 */
const BACKING_FLAGS =
  O_ACCMODE | O_DIRECT | constants.O_SYNC | constants.O_DSYNC | (constants.O_NOATIME ?? 0);

const WRITE_BITS = 0o222;

const DOT = cString('.');
const NO_NAME = new Uint8Array(0);

const DIRECT = OpenReplyFlag.DIRECT_IO | OpenReplyFlag.PARALLEL_DIRECT_WRITES;

/**
 * How the kernel is to serve one more handle of `node`; the `fuse_open_out` flags, or -ETXTBSY.
 * - *passed*: the kernel reads the backing file itself. Files that nobody may write (base images), see `Passthrough`.
 * - *direct*: every read and write comes here, in parallel, and the only page cache is the backing file's. Whatever may
 *   write, and what was opened with O_DIRECT, or is read beside such handles: nothing can be out of step.
 * - *cached*: the mount keeps what was read, as long as the file is unchanged.
 */
const serveHandle = (namespace: Namespace, node: Node, handle: number, flags: number): number => {
  const { table, handles, passthrough, mapsDirect, stat } = namespace;
  const fd = handles.table.fd(handle);
  const kinds =
    ((flags & O_DIRECT) !== 0 ? HANDLE_ODIRECT : 0) | ((flags & constants.O_DSYNC) !== 0 ? HANDLE_SYNCS : 0);
  const readOnly = (flags & O_ACCMODE) === O_RDONLY;
  const uncached = table.uncached(handles.table.slot(handle));
  const passable = node.passedHandles > 0 || (!uncached && (stat.mode & WRITE_BITS) === 0);
  if (readOnly && passable && passthrough.open(node, fd)) {
    handles.table.setKinds(handle, kinds | HANDLE_PASSED);
    return OpenReplyFlag.PASSTHROUGH;
  }
  if (node.passedHandles > 0) return -Errno.ETXTBSY;
  const writes = !readOnly && mapsDirect;
  if (writes || uncached || node.directHandles > 0 || (flags & O_DIRECT) !== 0) {
    handles.table.setKinds(handle, kinds | HANDLE_DIRECT);
    node.directHandles++;
    return DIRECT;
  }
  handles.table.setKinds(handle, kinds | HANDLE_CACHED);
  node.cachedHandles++;
  const stamp = contentStamp(stat, systemClock.wall());
  const keep = stamp !== '' && stamp === node.stamp;
  node.stamp = stamp;
  return keep ? OpenReplyFlag.KEEP_CACHE : 0;
};

/** Makes a handle of `fd`, the file of `node`, which it takes over, and puts `fuse_open_out` at word `at`; 16 or -errno. */
const openHandle = (namespace: Namespace, node: Node, fd: number, flags: number, at: number): number => {
  const { registry, handles, stat, reply } = namespace;
  const slot = registry.acquire(stat.device, stat.inode, fd);
  const handle = slot === NO_SLOT ? -1 : handles.allocate(fd, slot);
  if (handle < 0) {
    if (slot !== NO_SLOT) registry.release(slot);
    close(fd);
    return -Errno.ENFILE;
  }
  handles.table.setPrivileged(slot, (stat.mode & (S_ISUID | S_ISGID)) !== 0);
  putU64(reply.words, at, handle);
  const openFlags = serveHandle(namespace, node, handle, flags);
  if (openFlags < 0) {
    closeHandle(namespace, handle);
    return openFlags;
  }
  reply.words[at + 2] = openFlags;
  reply.words[at + 3] = node.backingId;
  return 16;
};

/** ETXTBSY is answered only when it stays so. */
export const open: Operation = (namespace, request) => {
  const result = openNow(namespace, request);
  if (result !== -Errno.ETXTBSY || nodeOf(namespace, request.nodeId).passedHandles === 0) return result;
  namespace.waitingOpens.add(request);
  return NO_REPLY;
};

export const openNow: Operation = (namespace, request) => {
  const node = nodeOf(namespace, request.nodeId);
  const flags = request.u32(10);
  if (descriptorsUsedUp(namespace)) return -Errno.ENFILE;
  const fd = openat(AT_FDCWD, descriptorPath(node.fd), (flags & BACKING_FLAGS) | O_CLOEXEC, 0);
  if (fd < 0) return outOfDescriptors(fd);
  const result = namespace.stat.ofDescriptor(fd);
  if (result >= 0) return openHandle(namespace, node, fd, flags, 0);
  close(fd);
  return result;
};

/** Looks the new file up by its descriptor and replies with entry and handle. Takes `fd` over. */
const replyCreated = (namespace: Namespace, request: RequestView, fd: number, name: Uint8Array): number => {
  const flags = request.u32(10);
  const path = openat(AT_FDCWD, descriptorPath(fd), O_PATH | O_CLOEXEC, 0);
  const node = path < 0 ? outOfDescriptors(path) : adoptDescriptor(namespace, path, request.nodeId, name);
  if (typeof node === 'number') {
    close(fd);
    return node;
  }
  const result = openHandle(namespace, node, fd, flags, ENTRY_BYTES / 4);
  if (result < 0) {
    namespace.nodes.forget(node.id, 1);
    return result;
  }
  return replyEntry(namespace, node) + result;
};

export const create: Operation = (namespace, request) => {
  const parent = nodeOf(namespace, request.nodeId).fd;
  const flags = request.u32(10);
  const mode = request.u32(11) & 0o7777;
  const name = request.name(16);
  if (descriptorsUsedUp(namespace)) return -Errno.ENFILE;
  const create = (flags & BACKING_FLAGS) | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
  const fd = underUmask(request.u32(12), () => openat(parent, name, create, mode));
  // Made by another process since the kernel looked, which looks again: it would take what is opened here for a file of the
  // caller's own, and not ask whether he may have it.
  if (fd === -Errno.EEXIST && (flags & O_EXCL) === 0) return -Errno.ESTALE;
  if (fd < 0) return outOfDescriptors(fd);
  return finishFile(namespace, request, parent, fd, name, mode, () => unlinkat(parent, name, 0));
};

export const createTemporary: Operation = (namespace, request) => {
  const parent = nodeOf(namespace, request.nodeId).fd;
  const flags = request.u32(10);
  const mode = request.u32(11) & 0o7777;
  if (descriptorsUsedUp(namespace)) return -Errno.ENFILE;
  const open = (flags & (BACKING_FLAGS | O_EXCL)) | O_TMPFILE | O_CLOEXEC;
  const fd = underUmask(request.u32(12), () => openat(parent, DOT, open, mode));
  return fd < 0 ? outOfDescriptors(fd) : finishFile(namespace, request, parent, fd, NO_NAME, mode, () => 0);
};

const finishFile = (
  namespace: Namespace,
  request: RequestView,
  parent: number,
  fd: number,
  name: Uint8Array,
  mode: number,
  undo: () => number,
): number => {
  const owned = giveToCaller(parent, fd, request, mode);
  const result = owned < 0 ? owned : replyCreated(namespace, request, fd, name);
  if (owned < 0) close(fd);
  if (result < 0) undo();
  return result;
};

const closeHandle = ({ handles, registry }: Namespace, handle: number): void => {
  const slot = handles.table.slot(handle);
  close(handles.table.fd(handle));
  handles.free(handle);
  registry.release(slot);
};

export const release: Operation = (namespace, request) => {
  const handle = request.u32(10);
  const kinds = namespace.handles.table.kinds(handle);
  const node = nodeOf(namespace, request.nodeId);
  if ((kinds & HANDLE_PASSED) !== 0) namespace.passthrough.close(node);
  else if ((kinds & HANDLE_DIRECT) !== 0) node.directHandles--;
  else node.cachedHandles--;
  closeHandle(namespace, handle);
  return 0;
};
