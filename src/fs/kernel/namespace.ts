import { Errno } from '../errno.js';
import type { ImageIo } from '../image-io.js';
import type { ImageRegistry } from '../image-registry.js';
import { NO_SLOT } from '../image-registry.js';
import type { ImageSlot, ImageTable } from '../image-table.js';
import { close, O_CLOEXEC, O_NOFOLLOW, O_PATH, openat } from '../libc.js';
import type { StatBuffer } from '../stat-buffer.js';
import { VALID_SECONDS } from './attributes.js';
import type { DirectoryHandles } from './directory-reader.js';
import type { HandleAllocator } from './handle-table.js';
import type { Node, NodeTable } from './node-table.js';
import type { Passthrough } from './passthrough.js';
import type { ReplyBuffer } from './reply.js';
import type { RequestView } from './request.js';

/** One metadata operation: the length of the body it put into the reply, `NO_REPLY`, or -errno. */
export type Operation = (namespace: Namespace, request: RequestView) => number;

/** What the replica thread is to do before a request can be answered; `finish` gets 0 or -errno. */
export type Deferred = (slot: ImageSlot, fd: number, size: number, finish: (result: number) => void) => void;

/** Everything the metadata operations work on; one thread owns it. */
export interface Namespace {
  readonly nodes: NodeTable;
  readonly registry: ImageRegistry;
  readonly table: ImageTable;
  readonly handles: HandleAllocator;
  readonly directories: DirectoryHandles;
  readonly io: ImageIo;
  readonly passthrough: Passthrough;
  /** The kernel can map files that are open without its page cache (Linux 6.6). */
  readonly mapsDirect: boolean;
  readonly reply: ReplyBuffer;
  /** Scratch: holds what the last call of an operation found. */
  readonly stat: StatBuffer;
  /** Truncates a routed image in the replica thread. */
  readonly truncateRouted: Deferred;
}

/** The node that a request is about. The kernel only names nodes that it was told of and has not forgotten. */
export const nodeOf = (namespace: Namespace, id: number): Node => {
  const node = namespace.nodes.get(id);
  if (!node) throw new Error(`the kernel names node ${id}, which it does not know`);
  return node;
};

/** Seconds the kernel may cache the attributes just read into `namespace.stat`. */
export const validSeconds = ({ registry, table, stat }: Namespace): number => {
  const slot = registry.slotOf(stat.device, stat.inode);
  return slot !== NO_SLOT && table.uncached(slot) ? 0 : VALID_SECONDS;
};

/**
 * The node of the entry `name` in `parent`, counted as looked up once more, with its attributes in
 * `namespace.stat`; or -errno.
 */
export const lookUp = (namespace: Namespace, parent: number, name: Uint8Array): Node | number => {
  const { nodes, stat } = namespace;
  const found = stat.ofEntry(parent, name);
  if (found < 0) return found;
  const known = nodes.find(stat.device, stat.inode);
  if (known) {
    known.lookups++;
    return known;
  }
  const fd = openat(parent, name, O_PATH | O_NOFOLLOW | O_CLOEXEC, 0);
  return fd < 0 ? outOfDescriptors(fd) : adoptDescriptor(namespace, fd);
};

/** The node behind an O_PATH descriptor, which it takes over; otherwise as `lookUp`. */
export const adoptDescriptor = (namespace: Namespace, fd: number): Node | number => {
  const { nodes, stat } = namespace;
  const result = stat.ofDescriptor(fd);
  if (result < 0) {
    close(fd);
    return result;
  }
  let node = nodes.find(stat.device, stat.inode);
  if (node) close(fd);
  else node = nodes.adopt(fd, stat.device, stat.inode);
  node.lookups++;
  return node;
};

/** EMFILE would blame the caller's process for the daemon's limit. */
export const outOfDescriptors = (result: number): number =>
  result === -Errno.EMFILE ? -Errno.ENFILE : result;
