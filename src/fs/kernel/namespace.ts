import { Errno } from '../errno.js';
import type { ImageIo } from '../image-io.js';
import type { ImageRegistry } from '../image-registry.js';
import { NO_SLOT } from '../image-registry.js';
import type { ImageSlot, ImageTable } from '../image-table.js';
import { close, O_CLOEXEC, O_NOFOLLOW, O_PATH, openat, S_IFDIR } from '../libc.js';
import type { StatBuffer } from '../stat-buffer.js';
import { VALID_SECONDS } from './attributes.js';
import type { DirectoryHandles } from './directory-reader.js';
import type { HandleAllocator } from './handle-table.js';
import type { NodePruner } from './node-pruner.js';
import type { Node, NodeTable } from './node-table.js';
import type { Passthrough } from './passthrough.js';
import type { ReplyBuffer } from './reply.js';
import type { RequestView } from './request.js';
import type { WaitingOpens } from './waiting-opens.js';

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
  readonly pruner: NodePruner;
  readonly io: ImageIo;
  /** Descriptors that nodes and handles may take together; the rest is the daemon's own. */
  readonly descriptorsMax: number;
  readonly passthrough: Passthrough;
  /** The kernel can map files that are open without its page cache (Linux 6.6). */
  readonly mapsDirect: boolean;
  readonly reply: ReplyBuffer;
  /** Scratch: holds what the last call of an operation found. */
  readonly stat: StatBuffer;
  readonly waitingOpens: WaitingOpens;
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
export const lookUp = (
  namespace: Namespace,
  parentId: number,
  parent: number,
  name: Uint8Array,
): Node | number => {
  const { nodes, stat } = namespace;
  const found = stat.ofEntry(parent, name);
  if (found < 0) return found;
  const known = nodes.find(stat.device, stat.inode);
  if (known) {
    known.lookups++;
    remember(known, stat, parentId, name);
    return known;
  }
  if (descriptorsUsedUp(namespace)) return -Errno.ENFILE;
  const fd = openat(parent, name, O_PATH | O_NOFOLLOW | O_CLOEXEC, 0);
  return fd < 0 ? outOfDescriptors(fd) : adoptDescriptor(namespace, fd, parentId, name);
};

/** Notes under which name the kernel knows a node that is no folder. */
const remember = (node: Node, stat: StatBuffer, parentId: number, name: Uint8Array): void => {
  if (stat.type === S_IFDIR || (node.parentId === parentId && Buffer.compare(node.name, name) === 0)) return;
  node.parentId = parentId;
  node.name = Uint8Array.from(name);
};

/** The node behind an O_PATH descriptor, which it takes over; otherwise as `lookUp`. `name` is empty: it has none. */
export const adoptDescriptor = (
  namespace: Namespace,
  fd: number,
  parentId: number,
  name: Uint8Array,
): Node | number => {
  const { nodes, pruner, stat } = namespace;
  const result = stat.ofDescriptor(fd);
  if (result < 0) {
    close(fd);
    return result;
  }
  let node = nodes.find(stat.device, stat.inode);
  if (node) close(fd);
  else {
    node = nodes.adopt(fd, stat.device, stat.inode);
    pruner.adopted();
  }
  node.lookups++;
  remember(node, stat, parentId, name);
  return node;
};

/**
 * Whether one more node or handle would take what the daemon needs itself: connections, records, replicas. An inode
 * that the kernel knows costs one descriptor, and it forgets them only when memory is short.
 */
export const descriptorsUsedUp = ({ nodes, handles, directories, descriptorsMax }: Namespace): boolean =>
  nodes.size + handles.size + directories.size >= descriptorsMax;

/** EMFILE would blame the caller's process for the daemon's limit. */
export const outOfDescriptors = (result: number): number =>
  result === -Errno.EMFILE ? -Errno.ENFILE : result;
