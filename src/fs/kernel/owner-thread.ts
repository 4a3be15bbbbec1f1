/**
 * The owner of the namespace: serves, one after the other, the metadata requests that the data workers hand over,
 * the results of the replica thread, and the calls to the image store. Sleeps on one shared word; no event loop.
 */
import type { MessagePort } from 'node:worker_threads';
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { answerCall } from '../../leaves/port-rpc.js';
import { createBackingCalls } from '../backing-calls.js';
import { Errno } from '../errno.js';
import { ImageIo } from '../image-io.js';
import { ImageRegistry } from '../image-registry.js';
import { ImageStoreService } from '../image-store-service.js';
import type { ImageSlot } from '../image-table.js';
import { GraceCounters, ImageTable } from '../image-table.js';
import { CLONE_FS, close, umask, unshare, write } from '../libc.js';
import type { RoutedRequest, ToParticipant } from '../participant.js';
import { StatBuffer } from '../stat-buffer.js';
import {
  batchForget,
  forget,
  getAttributes,
  getExtendedAttributes,
  lookup,
  readLink,
  setAttributes,
  statFileSystem,
} from './attribute-operations.js';
import {
  openDirectory,
  READDIR_BYTES_MAX,
  readDirectory,
  readDirectoryPlus,
  releaseDirectory,
  syncDirectory,
} from './directory-operations.js';
import { DirectoryHandles } from './directory-reader.js';
import {
  makeDirectory,
  makeLink,
  makeNode,
  makeSymlink,
  removeDirectory,
  rename,
  renameWithFlags,
  unlink,
} from './entry-operations.js';
import { create, createTemporary, open, openNow, release } from './file-operations.js';
import { HandleAllocator, HandleTable } from './handle-table.js';
import type { Namespace, Operation } from './namespace.js';
import { NodePruner } from './node-pruner.js';
import { NodeTable } from './node-table.js';
import { dropPages } from './notification.js';
import { Passthrough } from './passthrough.js';
import { Opcode } from './protocol.js';
import { NO_REPLY, ReplyBuffer } from './reply.js';
import { RequestView } from './request.js';
import { RequestRing } from './request-ring.js';
import type { FromThread, OwnerSetup } from './thread-messages.js';
import { OWNER_WAKE_PORTS_MASK, StopFlag } from './thread-messages.js';
import { WaitingOpens } from './waiting-opens.js';
import { getExtended, listExtended, removeExtended, setExtended } from './xattr-operations.js';

/** Inodes kept while nobody uses them. */
const NODES_MAX = 65_536;
/** Milliseconds between two tries of an open that waits. */
const OPEN_RETRY = 1;
/** Requests taken from one ring before the others have their turn. */
const REQUESTS_PER_TURN = 64;

const setup = workerData as OwnerSetup;
const tell = (message: FromThread): void => parentPort?.postMessage(message);

const OPERATIONS = new Map<number, Operation>([
  [Opcode.LOOKUP, lookup],
  [Opcode.FORGET, forget],
  [Opcode.BATCH_FORGET, batchForget],
  [Opcode.GETATTR, getAttributes],
  [Opcode.STATX, getExtendedAttributes],
  [Opcode.SETATTR, setAttributes],
  [Opcode.READLINK, readLink],
  [Opcode.STATFS, statFileSystem],
  [Opcode.MKNOD, makeNode],
  [Opcode.MKDIR, makeDirectory],
  [Opcode.SYMLINK, makeSymlink],
  [Opcode.LINK, makeLink],
  [Opcode.UNLINK, unlink],
  [Opcode.RMDIR, removeDirectory],
  [Opcode.RENAME, rename],
  [Opcode.RENAME2, renameWithFlags],
  [Opcode.OPEN, open],
  [Opcode.CREATE, create],
  [Opcode.TMPFILE, createTemporary],
  [Opcode.RELEASE, release],
  [Opcode.OPENDIR, openDirectory],
  [Opcode.READDIR, readDirectory],
  [Opcode.READDIRPLUS, readDirectoryPlus],
  [Opcode.RELEASEDIR, releaseDirectory],
  [Opcode.FSYNCDIR, syncDirectory],
  [Opcode.GETXATTR, getExtended],
  [Opcode.LISTXATTR, listExtended],
  [Opcode.SETXATTR, setExtended],
  [Opcode.REMOVEXATTR, removeExtended],
]);

/** Truncations under way in the replica thread, by id. */
class RoutedTruncations {
  readonly #port: MessagePort;
  readonly #waiting = new Map<number, (result: number) => void>();
  #next = 1;

  constructor(port: MessagePort) {
    this.#port = port;
  }

  begin(slot: ImageSlot, fd: number, size: number, finish: (result: number) => void): void {
    const id = this.#next++;
    this.#waiting.set(id, finish);
    const routed: RoutedRequest = { op: 'truncate', slot, fd, size, reply: { kind: 'port', id } };
    this.#port.postMessage(routed);
  }

  finish(id: number, result: number): void {
    this.#waiting.get(id)?.(result);
    this.#waiting.delete(id);
  }
}

const createNamespace = (truncations: RoutedTruncations, table: ImageTable): Namespace => {
  const stat = new StatBuffer();
  if (stat.ofDescriptor(setup.rootFd) < 0) throw new Error('the image directory cannot be read');
  const nodes = new NodeTable(setup.rootFd, stat.device, stat.inode);
  const registry = new ImageRegistry(table, (error) =>
    tell({ type: 'log', level: 'error', message: 'image fenced', fields: { reason: String(error) } }),
  );
  const io = new ImageIo(table, new GraceCounters(setup.grace), setup.participant, createBackingCalls(), () =>
    drainParticipantPort(),
  );
  return {
    nodes,
    registry,
    table,
    handles: new HandleAllocator(new HandleTable(setup.handles)),
    directories: new DirectoryHandles(),
    io,
    mapsDirect: setup.mapsDirect,
    pruner: new NodePruner(nodes, Math.min(NODES_MAX, setup.descriptorsMax / 2), (messages) =>
      tell({ type: 'notify', messages }),
    ),
    descriptorsMax: setup.descriptorsMax,
    passthrough: new Passthrough(setup.notifyFd, setup.passthrough, (errno) =>
      tell({
        type: 'log',
        level: 'info',
        message: 'the kernel does not take a backing file',
        fields: { errno },
      }),
    ),
    reply: new ReplyBuffer(READDIR_BYTES_MAX),
    stat,
    waitingOpens: new WaitingOpens((request) => openNow(namespace, request), send),
    truncateRouted: (slot, fd, size, finish) => truncations.begin(slot, fd, size, finish),
  };
};

/** Results that came while an announcement was waited for: acted on later, never in the middle of an operation. */
const results: { id: number; result: number }[] = [];

const drainParticipantPort = (): void => {
  for (let got = receiveMessageOnPort(setup.port); got; got = receiveMessageOnPort(setup.port)) {
    const message = got.message as ToParticipant;
    switch (message.type) {
      case 'bitmap':
        namespace.io.announce(message);
        break;
      case 'result':
        results.push(message);
        break;
      default:
        message satisfies never;
    }
  }
};

/** Drops the kernel's cached pages and attributes of an image (FUSE_NOTIFY_INVAL_INODE, the whole range). */
const invalidateInode = (slot: ImageSlot): void => {
  const { device, inode } = namespace.registry.identityOf(slot);
  const node = namespace.nodes.find(device, inode);
  if (!node) return;
  const message = dropPages(node.id, 0, 0);
  const result = write(setup.notifyFd, message, message.length);
  if (result < 0 && result !== -Errno.ENOENT)
    tell({ type: 'log', level: 'warn', message: 'cache not invalidated', fields: { errno: -result, slot } });
};

const request = new RequestView();

/** What is in the reply's body, or -errno. */
const send = ({ fuseFd, uniqueLow, uniqueHigh }: RequestView, length: number): void =>
  namespace.reply.send(fuseFd, uniqueLow, uniqueHigh, length);

const serve = (): void => {
  const operation = OPERATIONS.get(request.opcode);
  const length = operation ? operation(namespace, request) : -Errno.ENOSYS;
  if (length !== NO_REPLY) send(request, length);
};

/** Serves what is in the rings, each in its turn; false when they were all empty. */
const drainRings = (): boolean => {
  let served = false;
  rings.forEach((ring, index) => {
    for (let i = 0; i < REQUESTS_PER_TURN; i++) {
      const at = ring.peek();
      if (at < 0) return;
      request.set(ring.words, ring.bytes, at, setup.fuseFds[index]!);
      serve();
      ring.shift();
      served = true;
    }
  });
  return served;
};

const drainPorts = (): void => {
  drainParticipantPort();
  for (let done = results.shift(); done; done = results.shift()) truncations.finish(done.id, done.result);
  for (let got = receiveMessageOnPort(setup.storePort); got; got = receiveMessageOnPort(setup.storePort))
    setup.storePort.postMessage(answerCall(store, got.message as Parameters<typeof answerCall>[1]));
};

const run = (): void => {
  const wake = new Int32Array(setup.ownerWake);
  const stop = new StopFlag(setup.stop);
  let portsSeen = -1;
  for (;;) {
    const seen = Atomics.load(wake, 0);
    const stopping = stop.raised;
    if ((seen & OWNER_WAKE_PORTS_MASK) !== portsSeen) {
      portsSeen = seen & OWNER_WAKE_PORTS_MASK;
      drainPorts();
    }
    namespace.waitingOpens.retry();
    if (drainRings()) continue;
    if (stopping) return;
    Atomics.wait(wake, 0, seen, namespace.waitingOpens.any ? OPEN_RETRY : Number.POSITIVE_INFINITY);
  }
};

const closeAll = (): void => {
  store.close();
  for (const handle of [...namespace.handles.open]) {
    close(namespace.handles.table.fd(handle));
    namespace.handles.free(handle);
  }
  namespace.directories.close();
  namespace.nodes.close();
};

// umask belongs to the process unless this thread has its own; every creation sets the caller's.
unshare(CLONE_FS);
umask(0);
const table = new ImageTable(setup.images);
const truncations = new RoutedTruncations(setup.port);
const namespace = createNamespace(truncations, table);
const store = new ImageStoreService(setup.rootFd, table, namespace.registry, invalidateInode);
const rings = setup.rings.map((buffer) => new RequestRing(buffer));
tell({ type: 'ready' });
run();
closeAll();
setup.port.close();
setup.storePort.close();
