/** The portable transport: fuse-native, which is libfuse 2 calling back into the main thread's event loop. */
import { execFile } from 'node:child_process';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { MessageChannel } from 'node:worker_threads';
import { systemClock } from '../../leaves/clock.js';
import { MigrateFsError } from '../../leaves/errors.js';
import { servePort } from '../../leaves/port-rpc.js';
import { millis } from '../../leaves/units.js';
import { createBackingCalls } from '../backing-calls.js';
import { ImageIo } from '../image-io.js';
import { ImageRegistry } from '../image-registry.js';
import { ImageStoreService } from '../image-store-service.js';
import { GraceCounters, ImageTable } from '../image-table.js';
import { checkMountpoint, openFuseDevice, openImageDirectory } from '../kernel/mount-point.js';
import { close, duplicate, POLLERR, raiseOpenFilesLimit, rawPoll } from '../libc.js';
import { mountsAt, OwnMount } from '../mount-table.js';
import type { MountedFileSystem, MountOptions } from '../mounted-file-system.js';
import { UndoStack } from '../undo-stack.js';
import { BackingTree } from './backing-tree.js';
import { dataOperations, RoutedRequests } from './data-operations.js';
import type { FuseSession } from './fuse-session.js';
import { attributeOperations, nameOperations, xattrOperations } from './metadata-operations.js';
import { OpenFiles } from './open-files.js';

const PARTICIPANT = 0;
/** How often the connection is looked at: fuse-native does not tell when libfuse's loop has ended. */
const MOUNT_LOOK_INTERVAL = millis(500);

/** Loaded only when it is used: the package has binaries for few platforms. */
const loadSession = async (): Promise<typeof import('./fuse-session.js')> => {
  try {
    return await import('./fuse-session.js');
  } catch (error) {
    throw new MigrateFsError(
      'UNIMPLEMENTED',
      `the fuse-native package has no binary for ${process.platform}-${process.arch}: use --transport kernel`,
      { cause: error },
    );
  }
};

/** Whether this process has CAP_SYS_ADMIN (capabilities(7); the mask is the line CapEff of proc_pid_status(5)). */
const mayMount = (): boolean => {
  const CAP_SYS_ADMIN = 21n;
  const mask = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '0';
  return ((BigInt(`0x${mask}`) >> CAP_SYS_ADMIN) & 1n) === 1n;
};

/** In its own process: unmounting writes back mapped pages, which this thread must then serve. */
const unmount = (mount: OwnMount, lazy: boolean): Promise<void> =>
  new Promise((resolve, reject) => {
    const { path: mountpoint, isOnTop } = mount;
    if (!isOnTop) return resolve();
    const args = lazy ? ['-i', '-l', mountpoint] : ['-i', mountpoint];
    execFile('umount', args, (error, _stdout, stderr) => {
      if (!error || !mount.isMounted) return resolve();
      reject(
        new MigrateFsError(
          'FAILED_PRECONDITION',
          stderr.includes('busy')
            ? `${mountpoint} is in use (fuser -vm ${mountpoint} names the processes): close its files, or detach it lazily`
            : `cannot unmount ${mountpoint}: ${stderr.trim()}`,
          { cause: error },
        ),
      );
    });
  });

const fuseDescriptors = (): readonly number[] =>
  readdirSync('/proc/self/fd')
    .filter((fd) => {
      try {
        return readlinkSync(`/proc/self/fd/${fd}`) === '/dev/fuse';
      } catch {
        return false; // the one that this looks through
      }
    })
    .map(Number);

/**
 * Resolves when the kernel has given the connection up: nothing is mounted and the last file is closed. Their requests
 * do not tell: what is queued at that moment, the last RELEASE as a rule, may be dropped. Closes `connection`.
 */
const untilGone = (connection: number): Promise<void> =>
  new Promise((resolve) => {
    const pollfd = Int32Array.of(connection, 0);
    const look = (): void => {
      if (rawPoll(pollfd, 1, 0) > 0 && ((pollfd[1]! >> 16) & POLLERR) !== 0) {
        close(connection);
        resolve();
      } else systemClock.after(MOUNT_LOOK_INTERVAL, look);
    };
    look();
  });

/** libfuse says why it fails on stderr only, so what can be known is found out first. Returns the resolved path. */
const checkBeforeMount = (imageDir: string, given: string, longest: number): string => {
  const mountpoint = checkMountpoint(imageDir, given);
  if (Buffer.byteLength(mountpoint) > longest)
    throw new MigrateFsError('INVALID_ARGUMENT', `the mount point's path is longer than ${longest} bytes`);
  if (mountsAt(mountpoint).some(({ type }) => type === 'fuse.migratefs'))
    throw new MigrateFsError(
      'FAILED_PRECONDITION',
      `mount point ${mountpoint} is busy: unmount what is there, or choose another`,
    );
  close(openFuseDevice());
  if (!mayMount())
    throw new MigrateFsError(
      'PERMISSION_DENIED',
      `no permission to mount on ${mountpoint}: run as root (CAP_SYS_ADMIN)`,
    );
  return mountpoint;
};

/**
 * Mounts through fuse-native and serves from this thread's event loop, which must be the main thread's.
 * Errors: as `mountKernel`; UNIMPLEMENTED where the package has no binary.
 */
export const mountFuseNative = async (options: MountOptions): Promise<MountedFileSystem> => {
  const { FuseSession, MOUNTPOINT_BYTES_MAX } = await loadSession();
  using undo = new UndoStack();
  const root = openImageDirectory(options.imageDir);
  undo.defer(() => close(root));
  const mountpoint = checkBeforeMount(options.imageDir, options.mountpoint, MOUNTPOINT_BYTES_MAX);
  raiseOpenFilesLimit();
  // The kernel has taken the caller's mask off already.
  process.umask(0);

  const table = new ImageTable();
  const grace = new GraceCounters();
  const registry = new ImageRegistry(table, (error) =>
    options.log('error', 'an image is fenced: its ownership record is damaged', { err: error }),
  );
  const tree = new BackingTree(root, registry);
  const files = new OpenFiles(tree, registry, table);
  // An image that is being received is only ever open with direct I/O, so that nothing of it is cached.
  const store = new ImageStoreService(root, table, registry, () => undefined);
  const changes = new MessageChannel();
  const storeCalls = new MessageChannel();
  const io = new ImageIo(table, grace, PARTICIPANT, createBackingCalls(), () => routed.drain());
  const routed = new RoutedRequests(changes.port1, (announcement) => io.announce(announcement));
  servePort(storeCalls.port1, store);
  undo.defer(() => {
    changes.port1.close();
    storeCalls.port1.close();
  });

  const session: FuseSession = new FuseSession(mountpoint, `migratefs:${options.imageDir}`, {
    ...nameOperations(tree),
    ...attributeOperations(tree, () => session.request.modificationMillis),
    ...xattrOperations(tree),
    ...dataOperations(
      files,
      io,
      routed,
      () => session.request.useDirectIo(),
      () => session.request.writesBack(),
    ),
  });
  const others = new Set(fuseDescriptors());
  try {
    await session.mount();
  } catch (error) {
    throw new MigrateFsError('FAILED_PRECONDITION', `libfuse cannot mount on ${mountpoint}`, {
      cause: error,
    });
  }
  const mount = new OwnMount(mountpoint);
  // libfuse closes its own when its loop ends.
  const connection = duplicate(fuseDescriptors().find((fd) => !others.has(fd))!);
  undo.keep();
  /** A mount whose daemon has left hangs its users. */
  const detachAtExit = (): void => mount.abandon(options.log);
  process.once('exit', detachAtExit);
  const release = (): void => {
    process.removeListener('exit', detachAtExit);
    session.forget();
    files.closeAll();
    store.close();
    changes.port1.close();
    storeCalls.port1.close();
    close(root);
  };
  let leave = async (): Promise<void> => {};
  const gone = untilGone(connection);
  void gone.then(() => mount.end());
  return {
    ends: {
      images: table.buffer,
      grace: grace.buffer,
      participants: [{ port: changes.port2, wake: null }],
      mirrors: false,
      store: { port: storeCalls.port2, wake: null },
    },
    transfer: [changes.port2, storeCalls.port2],
    detach: ({ lazy }) => unmount(mount, lazy),
    unmount: ({ lazy }) => unmount(mount, lazy),
    gone,
    onGone: (next) => {
      leave = next;
    },
    closed: gone
      .then(() => leave())
      .catch((error: Error) => {
        options.log('error', 'not everybody has left the mount', { reason: error.message });
      })
      .then(release),
  };
};
