/** LOOKUP, FORGET, GETATTR, STATX, SETATTR, READLINK, STATFS. */

import { Errno } from '../errno.js';
import { ROUTED } from '../image-io.js';
import { NO_SLOT } from '../image-registry.js';
import {
  AT_EMPTY_PATH,
  AT_FDCWD,
  chmod,
  close,
  descriptorPath,
  EMPTY_PATH,
  fchownat,
  O_CLOEXEC,
  O_WRONLY,
  openat,
  readlinkat,
  S_ISGID,
  S_ISUID,
  UTIME_NOW,
  UTIME_OMIT,
  utimensat,
} from '../libc.js';
import { STATX_BYTES, StatVfsBuffer } from '../stat-buffer.js';
import { putAttributesReply, putEntry } from './attributes.js';
import type { Namespace, Operation } from './namespace.js';
import { lookUp, nodeOf, outOfDescriptors, validSeconds } from './namespace.js';
import type { Node } from './node-table.js';
import { dropPrivilegeBits } from './privilege-bits.js';
import { ENTRY_BYTES, SetattrValid } from './protocol.js';
import { NO_REPLY } from './reply.js';
import type { RequestView } from './request.js';

const PATH_BYTES_MAX = 4096;
const KEEP_ID = 0xffffffff;

export const lookup: Operation = (namespace, request) => {
  const node = lookUp(namespace, request.nodeId, nodeOf(namespace, request.nodeId).fd, request.name(0));
  return typeof node === 'number' ? node : replyEntry(namespace, node);
};

/** Puts the entry reply of a node whose attributes are in `namespace.stat`. */
export const replyEntry = (namespace: Namespace, node: Node): number => {
  putEntry(namespace.reply.words, 0, node.id, namespace.stat, validSeconds(namespace));
  return ENTRY_BYTES;
};

export const forget: Operation = (namespace, request) => {
  namespace.nodes.forget(request.nodeId, request.u64(10));
  return NO_REPLY;
};

export const batchForget: Operation = (namespace, request) => {
  const count = request.u32(10);
  for (let i = 0; i < count; i++) namespace.nodes.forget(request.u64(12 + i * 4), request.u64(14 + i * 4));
  return NO_REPLY;
};

export const getAttributes: Operation = (namespace, request) => {
  const { stat, reply } = namespace;
  const result = stat.ofDescriptor(nodeOf(namespace, request.nodeId).fd);
  return result < 0 ? result : putAttributesReply(reply.words, 0, stat, validSeconds(namespace));
};

/** `fuse_statx` has the layout of `struct statx`. */
export const getExtendedAttributes: Operation = (namespace, request) => {
  const { stat, reply } = namespace;
  const result = stat.ofDescriptor(nodeOf(namespace, request.nodeId).fd);
  if (result < 0) return result;
  const { words } = reply;
  words.fill(0, 0, 8);
  words[0] = validSeconds(namespace);
  words.set(stat.words, 8);
  words.fill(0, 8 + 36, 8 + STATX_BYTES / 4); // mount id and what follows is spare in this protocol
  return 32 + STATX_BYTES;
};

export const readLink: Operation = (namespace, request) => {
  const { fd } = nodeOf(namespace, request.nodeId);
  return readlinkat(fd, EMPTY_PATH, namespace.reply.body, PATH_BYTES_MAX);
};

const vfs = new StatVfsBuffer();

export const statFileSystem: Operation = (namespace, request) => {
  const result = vfs.ofDescriptor(nodeOf(namespace, request.nodeId).fd);
  if (result < 0) return result;
  const from = new Uint32Array(vfs.words.buffer);
  const { words } = namespace.reply;
  words.set(from.subarray(4, 14), 0); // blocks, bfree, bavail, files, ffree
  words[10] = from[0]!; // bsize
  words[11] = from[20]!; // namelen
  words[12] = from[2]!; // frsize
  words.fill(0, 13, 20);
  return 80;
};

export const setAttributes: Operation = (namespace, request) => {
  const node = nodeOf(namespace, request.nodeId);
  const valid = request.u32(10);
  if ((valid & SetattrValid.MODE) !== 0) {
    const result = changeMode(namespace, node, request.u32(27) & 0o7777);
    if (result < 0) return result;
  }
  if ((valid & (SetattrValid.UID | SetattrValid.GID)) !== 0) {
    const uid = (valid & SetattrValid.UID) !== 0 ? request.u32(29) : KEEP_ID;
    const gid = (valid & SetattrValid.GID) !== 0 ? request.u32(30) : KEEP_ID;
    const result = fchownat(node.fd, EMPTY_PATH, uid, gid, AT_EMPTY_PATH);
    if (result < 0) return result;
  }
  if ((valid & SetattrValid.SIZE) === 0) return finishSetattr(namespace, node, request, 0);
  return changeSize(namespace, node, request);
};

const changeMode = ({ registry, handles }: Namespace, node: Node, mode: number): number => {
  const slot = registry.slotOf(node.device, node.inode);
  if (slot !== NO_SLOT && (mode & (S_ISUID | S_ISGID)) !== 0) handles.table.setPrivileged(slot, true);
  return chmod(descriptorPath(node.fd), mode);
};

/**
 * Through the handle if the request names one, else through a descriptor opened for this alone. EFBIG: the size is
 * not exact.
 */
const changeSize = (namespace: Namespace, node: Node, request: RequestView): number => {
  const { registry, handles, io } = namespace;
  const size = request.u64(14);
  if (size > Number.MAX_SAFE_INTEGER) return -Errno.EFBIG;
  let fd: number;
  let slot: number;
  let done: () => void = () => {};
  if ((request.u32(10) & SetattrValid.FH) !== 0) {
    fd = handles.table.fd(request.u32(12));
    slot = handles.table.slot(request.u32(12));
  } else {
    fd = openat(AT_FDCWD, descriptorPath(node.fd), O_WRONLY | O_CLOEXEC, 0);
    if (fd < 0) return outOfDescriptors(fd);
    slot = registry.acquire(node.device, node.inode, fd);
    done = () => {
      close(fd);
      if (slot !== NO_SLOT) registry.release(slot);
    };
  }
  const result = slot === NO_SLOT ? -Errno.ENFILE : io.truncate(slot, fd, size);
  if (result !== ROUTED) {
    done();
    return finishSetattr(namespace, node, request, result);
  }
  const kept = request.clone();
  namespace.truncateRouted(slot, fd, size, (routed) => {
    done();
    const length = finishSetattr(namespace, node, kept, routed);
    namespace.reply.send(kept.fuseFd, kept.uniqueLow, kept.uniqueHigh, length);
  });
  return NO_REPLY;
};

/** What comes after the size: its side effects, the times, and the reply. `result` is that of the truncation. */
const finishSetattr = (namespace: Namespace, node: Node, request: RequestView, result: number): number => {
  if (result < 0) return result;
  const { stat, reply } = namespace;
  const valid = request.u32(10);
  if ((valid & SetattrValid.KILL_SUIDGID) !== 0 && (valid & SetattrValid.SIZE) !== 0)
    dropPrivilegeBits(node.fd, stat);
  if ((valid & (SetattrValid.ATIME | SetattrValid.MTIME)) !== 0) {
    const times = new BigInt64Array(4);
    const [atimeNow, mtimeNow] = [valid & SetattrValid.ATIME_NOW, valid & SetattrValid.MTIME_NOW];
    times[1] = BigInt(
      (valid & SetattrValid.ATIME) === 0 ? UTIME_OMIT : atimeNow !== 0 ? UTIME_NOW : request.u32(24),
    );
    times[3] = BigInt(
      (valid & SetattrValid.MTIME) === 0 ? UTIME_OMIT : mtimeNow !== 0 ? UTIME_NOW : request.u32(25),
    );
    const seconds = new Uint32Array(times.buffer);
    seconds[0] = request.u32(18);
    seconds[1] = request.u32(19);
    seconds[4] = request.u32(20);
    seconds[5] = request.u32(21);
    const set = utimensat(AT_FDCWD, descriptorPath(node.fd), times, 0);
    if (set < 0) return set;
  }
  const found = stat.ofDescriptor(node.fd);
  return found < 0 ? found : putAttributesReply(reply.words, 0, stat, validSeconds(namespace));
};
