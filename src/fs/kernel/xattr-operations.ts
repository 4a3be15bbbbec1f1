/** GETXATTR, SETXATTR, LISTXATTR, REMOVEXATTR. The image record is invisible and cannot be touched. */
import { Errno } from '../errno.js';
import { IMAGE_RECORD_XATTR } from '../image-record.js';
import { chmod, descriptorPath, getxattr, listxattr, removexattr, S_ISGID, setxattr } from '../libc.js';
import type { Operation } from './namespace.js';
import { nodeOf } from './namespace.js';
import { SETXATTR_ACL_KILL_SGID } from './protocol.js';

/** The kernel's own limit of a value and of a list (XATTR_SIZE_MAX, XATTR_LIST_MAX). */
const XATTR_BYTES_MAX = 65_536;

const RECORD_NAME = Buffer.from(`${IMAGE_RECORD_XATTR}\0`);
const isRecord = (name: Uint8Array): boolean => RECORD_NAME.equals(name);

const ACL_PREFIX = Buffer.from('system.posix_acl_');
const isAcl = (name: Uint8Array): boolean => ACL_PREFIX.equals(name.subarray(0, ACL_PREFIX.length));

/** A value or a list of `length` bytes in the reply, as GETXATTR and LISTXATTR of size `wanted` answer it. */
const replySized = (words: Uint32Array, length: number, wanted: number): number => {
  if (length < 0 || wanted > 0) return length > wanted ? -Errno.ERANGE : length;
  words[0] = length;
  words[1] = 0;
  return 8;
};

export const getExtended: Operation = (namespace, request) => {
  const { fd } = nodeOf(namespace, request.nodeId);
  const { reply } = namespace;
  const name = request.name(8);
  if (isRecord(name)) return -Errno.ENODATA;
  const wanted = Math.min(request.u32(10), XATTR_BYTES_MAX);
  const length = getxattr(descriptorPath(fd), name, wanted === 0 ? null : reply.body, wanted);
  // The kernel asks for them to check permissions, and takes any other error for that of the check.
  if (length === -Errno.EOPNOTSUPP && isAcl(name)) return -Errno.ENODATA;
  return replySized(reply.words, length, wanted);
};

export const listExtended: Operation = (namespace, request) => {
  const { reply } = namespace;
  const path = descriptorPath(nodeOf(namespace, request.nodeId).fd);
  const length = listxattr(path, reply.body, XATTR_BYTES_MAX);
  if (length < 0) return length;
  return replySized(reply.words, withoutRecord(reply.body, length), request.u32(10));
};

/** Takes the record's name out of a list of NUL-terminated names; returns the new length. */
const withoutRecord = (list: Uint8Array, length: number): number => {
  for (let start = 0; start < length; ) {
    const end = list.indexOf(0, start) + 1;
    if (isRecord(list.subarray(start, end))) {
      list.copyWithin(start, end, length);
      return length - (end - start);
    }
    start = end;
  }
  return length;
};

export const setExtended: Operation = (namespace, request) => {
  const { fd } = nodeOf(namespace, request.nodeId);
  const size = request.u32(10);
  const name = request.name(16);
  if (isRecord(name)) return -Errno.EPERM;
  const path = descriptorPath(fd);
  const result = setxattr(path, name, request.data(16 + name.length, size), size, request.u32(11));
  if (result < 0 || (request.u32(12) & SETXATTR_ACL_KILL_SGID) === 0) return result;
  const { stat } = namespace;
  return stat.ofDescriptor(fd) < 0 ? 0 : chmod(path, stat.mode & 0o7777 & ~S_ISGID);
};

export const removeExtended: Operation = (namespace, request) => {
  const { fd } = nodeOf(namespace, request.nodeId);
  const name = request.name(0);
  return isRecord(name) ? -Errno.EPERM : removexattr(descriptorPath(fd), name);
};
