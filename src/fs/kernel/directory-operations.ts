/** OPENDIR, READDIR, READDIRPLUS, RELEASEDIR, FSYNCDIR. */
import { Errno } from '../errno.js';
import {
  AT_FDCWD,
  descriptorPath,
  fdatasync,
  fsync,
  O_CLOEXEC,
  O_DIRECTORY,
  O_RDONLY,
  openat,
} from '../libc.js';
import { putEntry } from './attributes.js';
import type { DirectoryReader } from './directory-reader.js';
import type { Namespace, Operation } from './namespace.js';
import { descriptorsUsedUp, lookUp, nodeOf, outOfDescriptors, validSeconds } from './namespace.js';
import { ENTRY_BYTES, FSYNC_DATASYNC, putU64 } from './protocol.js';

/** Open at a time, as each that is being read keeps a buffer, too. */
const DIRECTORIES_MAX = 8192;
/** Of the descriptors, so that files can be opened whatever somebody does with folders. */
const DIRECTORIES_SHARE = 0.25;
const DIRENT_HEADER_BYTES = 24;
/** More is not asked for often, and this bounds the reply buffer. */
export const READDIR_BYTES_MAX = 128 * 1024;

export const openDirectory: Operation = (namespace, request) => {
  const { fd } = nodeOf(namespace, request.nodeId);
  const { directories, descriptorsMax } = namespace;
  const directoriesMax = Math.min(DIRECTORIES_MAX, descriptorsMax * DIRECTORIES_SHARE);
  if (directories.size >= directoriesMax || descriptorsUsedUp(namespace)) return -Errno.ENFILE;
  const opened = openat(AT_FDCWD, descriptorPath(fd), O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
  if (opened < 0) return outOfDescriptors(opened);
  putU64(namespace.reply.words, 0, directories.open(opened));
  namespace.reply.words[2] = 0;
  namespace.reply.words[3] = 0;
  return 16;
};

export const releaseDirectory: Operation = (namespace, request) => {
  namespace.directories.release(request.u64(10));
  return 0;
};

export const syncDirectory: Operation = (namespace, request) => {
  const { fd } = namespace.directories.get(request.u64(10));
  return (request.u32(12) & FSYNC_DATASYNC) !== 0 ? fdatasync(fd) : fsync(fd);
};

/** Writes a `fuse_dirent` at byte `at`; returns where the next one begins. */
const putDirent = (namespace: Namespace, at: number, reader: DirectoryReader, name: Uint8Array): number => {
  const { words, body } = namespace.reply;
  const word = at >>> 2;
  const length = name.length - 1;
  words[word] = reader.inodeLow;
  words[word + 1] = reader.inodeHigh;
  words[word + 2] = reader.cookieLow;
  words[word + 3] = reader.cookieHigh;
  words[word + 4] = length;
  words[word + 5] = reader.type;
  const start = at + DIRENT_HEADER_BYTES;
  const end = (start + length + 7) & ~7;
  body.fill(0, start + length, end);
  body.set(name.subarray(0, length), start);
  return end;
};

const DOT = 0x2e;
const isDotOrDotDot = (name: Uint8Array): boolean =>
  name[0] === DOT && (name.length === 2 || (name.length === 3 && name[1] === DOT));

/** Writes the `fuse_entry_out` of one entry; an entry that is gone, or `.` and `..`, counts as not looked up. */
const putLookup = (
  namespace: Namespace,
  at: number,
  parentId: number,
  directory: number,
  name: Uint8Array,
): void => {
  const { words } = namespace.reply;
  const node = isDotOrDotDot(name) ? 0 : lookUp(namespace, parentId, directory, name);
  if (typeof node === 'number') words.fill(0, at >>> 2, (at + ENTRY_BYTES) >>> 2);
  else putEntry(words, at >>> 2, node.id, namespace.stat, validSeconds(namespace));
};

const readEntries =
  (plus: boolean): Operation =>
  (namespace, request) => {
    const reader = namespace.directories.get(request.u64(10));
    const size = Math.min(request.u32(14), READDIR_BYTES_MAX);
    const sought = reader.seek(request.u32(12), request.u32(13));
    if (sought < 0) return sought;
    const lead = plus ? ENTRY_BYTES : 0;
    let at = 0;
    for (;;) {
      const more = reader.next();
      if (more < 0 && at === 0) return more;
      if (more <= 0) return at;
      const { name } = reader;
      if (at + lead + ((DIRENT_HEADER_BYTES + name.length - 1 + 7) & ~7) > size) return at;
      if (plus) putLookup(namespace, at, request.nodeId, reader.fd, name);
      at = putDirent(namespace, at + lead, reader, name);
      reader.shift();
    }
  };

export const readDirectory = readEntries(false);
export const readDirectoryPlus = readEntries(true);
