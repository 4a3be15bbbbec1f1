import assert from 'node:assert/strict';
import type { Transferable } from 'node:worker_threads';
import { MessageChannel, Worker } from 'node:worker_threads';
import { MigrateFsError } from '../../leaves/errors.js';
import { GraceCounters, ImageTable, PARTICIPANTS_MAX } from '../image-table.js';
import { close, MNT_DETACH, MNT_FORCE, raiseOpenFilesLimit } from '../libc.js';
import type { MountedFileSystem, MountOptions } from '../mounted-file-system.js';
import type { ParticipantEnd } from '../participant.js';
import { UndoStack } from '../undo-stack.js';
import { HandleTable } from './handle-table.js';
import {
  checkMountpoint,
  cloneFuseDevice,
  mountFuse,
  openFuseDevice,
  openImageDirectory,
  unmountFuse,
} from './mount-point.js';
import { RequestRing } from './request-ring.js';
import type { Session } from './session-init.js';
import { initSession } from './session-init.js';
import type { DataWorkerSetup, FromThread, OwnerSetup } from './thread-messages.js';
import { OWNER_WAKE_REQUEST, StopFlag } from './thread-messages.js';

/** The owner of the namespace is a participant too. */
const DATA_WORKERS_MAX = PARTICIPANTS_MAX - 1;

type Log = MountOptions['log'];

/** A thread of the mount: `ended` resolves when it has returned, and rejects when it has crashed. */
interface Thread {
  readonly ready: Promise<void>;
  readonly ended: Promise<void>;
}

const startThread = (file: string, setup: object, transferList: Transferable[], log: Log): Thread => {
  const worker = new Worker(new URL(file, import.meta.url), { workerData: setup, transferList });
  const ended = new Promise<void>((resolve, reject) => {
    worker.once('error', reject);
    worker.once('exit', (code) => {
      if (code === 0) resolve();
      else reject(new Error(`${file} exited with ${code}`));
    });
  });
  const ready = new Promise<void>((resolve, reject) => {
    worker.on('message', (message: FromThread) => {
      if (message.type === 'ready') resolve();
      else log(message.level, message.message, message.fields);
    });
    ended.then(() => reject(new Error(`${file} ended early`)), reject);
  });
  ready.catch(() => {}); // reported through `ended`
  return { ready, ended };
};

/** The threads of one mount and what they share. */
class KernelMount implements MountedFileSystem {
  readonly ends: MountedFileSystem['ends'];
  readonly transfer: MountedFileSystem['transfer'];
  readonly closed: Promise<void>;
  readonly ready: Promise<void>;
  readonly #mountpoint: string;
  readonly #log: Log;
  readonly #stop = new StopFlag();
  readonly #ownerWake = new SharedArrayBuffer(4);
  readonly #workers: readonly Thread[];
  readonly #owner: Thread;
  #crashed = false;

  constructor(
    options: MountOptions,
    mountpoint: string,
    rootFd: number,
    fuseFds: readonly number[],
    session: Session,
  ) {
    this.#mountpoint = mountpoint;
    this.#log = options.log;
    const shared = {
      images: new ImageTable().buffer,
      grace: new GraceCounters().buffer,
      handles: new HandleTable().buffer,
      ownerWake: this.#ownerWake,
      stop: this.#stop.buffer,
    };
    const participants: ParticipantEnd[] = [];
    const rings = fuseFds.map(() => new RequestRing().buffer);
    this.#workers = fuseFds.map((fuseFd, index) => {
      const { port1, port2 } = new MessageChannel();
      const posted = new SharedArrayBuffer(4);
      participants.push({ port: port1, wake: posted });
      const setup: DataWorkerSetup = {
        ...shared,
        participant: index,
        port: port2,
        fuseFd,
        ring: rings[index]!,
        posted,
      };
      return startThread('./data-worker.js', setup, [port2], options.log);
    });
    const { port1, port2 } = new MessageChannel();
    const store = new MessageChannel();
    participants.push({ port: port1, wake: this.#ownerWake });
    const setup: OwnerSetup = {
      ...shared,
      participant: fuseFds.length,
      port: port2,
      storePort: store.port2,
      rootFd,
      notifyFd: fuseFds[0]!,
      rings,
      fuseFds,
      passthrough: session.passthrough,
      mapsDirect: session.mapsDirect,
    };
    this.#owner = startThread('./owner-thread.js', setup, [port2, store.port2], options.log);
    this.ends = {
      images: shared.images,
      grace: shared.grace,
      participants,
      store: { port: store.port1, wake: this.#ownerWake },
    };
    this.transfer = [...participants.map(({ port }) => port), store.port1];
    const threads = [...this.#workers, this.#owner];
    this.ready = Promise.all(threads.map(({ ready }) => ready)).then(() => {});
    this.ready.catch(() => {}); // the constructor's caller waits for it
    for (const { ended } of threads) ended.catch((error: unknown) => this.#onCrash(error));
    this.closed = this.#waitForEnd(rootFd, fuseFds);
    this.closed.catch(() => {}); // whoever serves the mount waits for it
    process.once('exit', this.#detachAtExit);
  }

  async unmount({ lazy }: { lazy: boolean }): Promise<void> {
    unmountFuse(this.#mountpoint, lazy ? MNT_DETACH : 0);
    await this.closed;
  }

  /** Threads that wait in read(2) would keep the process from exiting; a mount without a daemon hangs its users. */
  readonly #detachAtExit = (): void => {
    unmountFuse(this.#mountpoint, MNT_DETACH | MNT_FORCE);
  };

  /** A thread that has crashed leaves requests unanswered for ever: end the mount instead, which fails them. */
  #onCrash(error: unknown): void {
    this.#log('error', 'a file system thread has crashed; the mount ends', {
      reason: error instanceof Error ? (error.stack ?? error.message) : String(error),
    });
    if (this.#crashed) return;
    this.#crashed = true;
    this.#detachAtExit();
  }

  async #waitForEnd(rootFd: number, fuseFds: readonly number[]): Promise<void> {
    await Promise.allSettled(this.#workers.map(({ ended }) => ended));
    this.#stop.raise();
    const wake = new Int32Array(this.#ownerWake);
    Atomics.add(wake, 0, OWNER_WAKE_REQUEST);
    Atomics.notify(wake, 0);
    await Promise.allSettled([this.#owner.ended]);
    process.removeListener('exit', this.#detachAtExit);
    close(rootFd);
    // After a crash the replica thread may still answer what it was given: its descriptors must not be reused.
    if (this.#crashed)
      throw new MigrateFsError('INTERNAL', 'a file system thread has crashed; mount it again');
    for (const fd of fuseFds) close(fd);
  }
}

/**
 * Mounts `imageDir` on `mountpoint` through our own /dev/fuse transport. Rejects with a MigrateFsError whose message
 * says cause and remedy, and leaves nothing behind, when that is not possible.
 */
export const mountKernel = async (options: MountOptions): Promise<MountedFileSystem> => {
  const { imageDir, workers } = options;
  assert(Number.isInteger(workers) && workers >= 1 && workers <= DATA_WORKERS_MAX, `${workers} data workers`);
  raiseOpenFilesLimit();
  using undo = new UndoStack();
  const rootFd = openImageDirectory(imageDir);
  undo.defer(() => close(rootFd));
  const mountpoint = checkMountpoint(imageDir, options.mountpoint);
  const fuseFds = [openFuseDevice()];
  undo.defer(() => {
    for (const fd of fuseFds) close(fd);
  });
  mountFuse(fuseFds[0]!, imageDir, mountpoint);
  undo.defer(() => unmountFuse(mountpoint, MNT_DETACH | MNT_FORCE));
  const session = initSession(fuseFds[0]!, options.passthrough);
  while (fuseFds.length < workers) fuseFds.push(cloneFuseDevice(fuseFds[0]!));
  const mounted = new KernelMount(options, mountpoint, rootFd, fuseFds, session);
  undo.keep();
  try {
    await mounted.ready;
  } catch (cause) {
    unmountFuse(mountpoint, MNT_DETACH | MNT_FORCE);
    await mounted.closed;
    throw new MigrateFsError('INTERNAL', 'the file system threads did not start', { cause });
  }
  options.log('info', 'mounted', {
    imageDir,
    mountpoint,
    workers,
    kernelProtocol: `7.${session.kernelMinor}`,
    passthrough: session.passthrough,
  });
  return mounted;
};
