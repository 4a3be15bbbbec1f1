import assert from 'node:assert/strict';
import { MessageChannel } from 'node:worker_threads';
import { pause, systemClock } from '../../leaves/clock.js';
import { MigrateFsError } from '../../leaves/errors.js';
import { millis } from '../../leaves/units.js';
import { GraceCounters, ImageTable, PARTICIPANTS_MAX } from '../image-table.js';
import { close, exitNow, MNT_DETACH, raiseOpenFilesLimit } from '../libc.js';
import type { OwnMount } from '../mount-table.js';
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
} from './mount-point.js';
import { Notifier } from './notifier.js';
import { RequestRing } from './request-ring.js';
import type { ServiceThread } from './service-thread.js';
import { startThread } from './service-thread.js';
import type { Session } from './session-init.js';
import { initSession } from './session-init.js';
import type { OwnerSetup } from './thread-messages.js';
import { OWNER_WAKE_REQUEST, StopFlag } from './thread-messages.js';
import { WorkerCrew } from './worker-crew.js';

const DATA_WORKERS_MAX = 64;
/** How long the end of the mount waits for the owner of the namespace, which may be in a call that does not return. */
const OWNER_END_MAX = millis(2_000);

/** Share of the process's descriptors that nodes and handles may take. */
const DESCRIPTORS_SHARE = 0.9;

type Log = MountOptions['log'];

/** The threads of one mount and what they share. */
class KernelMount implements MountedFileSystem {
  readonly ends: MountedFileSystem['ends'];
  readonly transfer: MountedFileSystem['transfer'];
  readonly gone: Promise<void>;
  readonly closed: Promise<void>;
  readonly ready: Promise<void>;
  readonly #mount: OwnMount;
  readonly #log: Log;
  readonly #stop = new StopFlag();
  readonly #ownerWake = new SharedArrayBuffer(4);
  readonly #crew: WorkerCrew;
  readonly #owner: ServiceThread;
  readonly #notifier: Notifier;
  #onInterrupt: (unique: bigint) => void = () => {};
  #leave: () => Promise<void> = async () => {};
  /** Threads that are in calls that do not return, once the mount is gone. */
  #left: readonly ServiceThread[] = [];
  #crashed = false;

  constructor(
    options: MountOptions,
    mount: OwnMount,
    rootFd: number,
    fuseFds: readonly number[],
    session: Session,
    descriptorsMax: number,
  ) {
    this.#mount = mount;
    this.#log = options.log;
    this.#notifier = new Notifier(fuseFds[0]!);
    const shared = {
      images: new ImageTable().buffer,
      grace: new GraceCounters().buffer,
      handles: new HandleTable().buffer,
      ownerWake: this.#ownerWake,
      stop: this.#stop.buffer,
    };
    const rings = fuseFds.map(() => new RequestRing().buffer);
    this.#crew = new WorkerCrew({
      shared,
      workers: options.workers,
      fuseFds,
      rings,
      clock: systemClock,
      log: options.log,
      onCrash: (error) => this.#onCrash(error),
      onInterrupt: (unique) => this.#onInterrupt(unique),
    });
    const participants: ParticipantEnd[] = [...this.#crew.seats.ends];
    const { port1, port2 } = new MessageChannel();
    const store = new MessageChannel();
    participants.push({ port: port1, wake: this.#ownerWake });
    const setup: OwnerSetup = {
      ...shared,
      participant: PARTICIPANTS_MAX - 1,
      port: port2,
      storePort: store.port2,
      rootFd,
      notifyFd: fuseFds[0]!,
      rings,
      fuseFds,
      passthrough: session.passthrough,
      mapsDirect: session.mapsDirect,
      descriptorsMax,
    };
    this.#owner = startThread('./owner-thread.js', setup, [port2, store.port2], (message) => {
      if (message.type === 'log') options.log(message.level, message.message, message.fields);
      if (message.type === 'notify') void this.#notifier.send(message.messages);
    });
    this.ends = {
      images: shared.images,
      grace: shared.grace,
      participants,
      mirrors: true,
      store: { port: store.port1, wake: this.#ownerWake },
    };
    this.transfer = [...participants.map(({ port }) => port), store.port1];
    this.ready = Promise.all([this.#crew.ready, this.#owner.ready]).then(() => {});
    this.ready.catch(() => {}); // the constructor's caller waits for it
    this.#owner.ended.catch((error: unknown) => this.#onCrash(error));
    this.gone = this.#crew.ended;
    void this.gone.then(() => mount.end());
    this.closed = this.#waitForEnd(rootFd, fuseFds);
    this.closed.catch(() => {}); // whoever serves the mount waits for it
    process.once('exit', this.#onExit);
  }

  onInterrupt(listener: (unique: bigint) => void): void {
    this.#onInterrupt = listener;
  }

  onGone(leave: () => Promise<void>): void {
    this.#leave = leave;
  }

  async unmount({ lazy }: { lazy: boolean }): Promise<void> {
    await this.detach({ lazy });
    await this.closed;
  }

  async detach({ lazy }: { lazy: boolean }): Promise<void> {
    this.#mount.unmount(lazy ? MNT_DETACH : 0);
  }

  /** Threads that wait in read(2) would keep the process from exiting; a mount without a daemon hangs its users. */
  readonly #onExit = (code: number): void => {
    this.#mount.abandon(this.#log);
    // Node would wait for its threads for as long as their calls take.
    if (this.#crew.stuck > 0 || this.#left.length > 0) exitNow(code);
  };

  /** A thread that has crashed leaves requests unanswered for ever: end the mount instead, which fails them. */
  #onCrash(error: unknown): void {
    this.#log('error', 'a file system thread has crashed; the mount ends', {
      reason: error instanceof Error ? (error.stack ?? error.message) : String(error),
    });
    if (this.#crashed) return;
    this.#crashed = true;
    this.#mount.abandon(this.#log);
  }

  async #waitForEnd(rootFd: number, fuseFds: readonly number[]): Promise<void> {
    await this.gone;
    // Lanes give back ports whose other ends are with whoever leaves.
    const stuck = await this.#crew.close();
    await this.#leave().catch((error: Error) => {
      this.#log('error', 'not everybody has left the mount', { reason: error.message });
    });
    this.#stop.raise();
    const wake = new Int32Array(this.#ownerWake);
    Atomics.add(wake, 0, OWNER_WAKE_REQUEST);
    Atomics.notify(wake, 0);
    const stop = new AbortController();
    const late = pause(systemClock, OWNER_END_MAX, stop.signal).then(
      () => [this.#owner],
      () => [],
    );
    const owner = await Promise.race([Promise.allSettled([this.#owner.ended]).then(() => []), late]);
    stop.abort();
    this.#left = [...owner, ...stuck];
    if (this.#left.length > 0) {
      // What they still use stays open: another file must not get its number.
      for (const thread of this.#left) thread.unref();
      this.#log('warn', 'calls on backing files have not returned; the daemon ends without them', {
        threads: this.#left.length,
      });
    } else process.removeListener('exit', this.#onExit);
    // After a crash the replica thread may still answer what it was given: its descriptors must not be reused.
    if (this.#crashed)
      throw new MigrateFsError('INTERNAL', 'a file system thread has crashed; mount it again');
    if (this.#left.length > 0) return;
    await this.#notifier.idle();
    close(rootFd);
    for (const fd of fuseFds) close(fd);
  }
}

/**
 * Mounts `imageDir` on `mountpoint` through our own /dev/fuse transport. Rejects with a MigrateFsError whose message
 * says cause and remedy, and leaves nothing behind, when that is not possible.
 */
export const mountKernel = async (options: MountOptions): Promise<MountedFileSystem> => {
  const { imageDir, workers, workersMax } = options;
  assert(1 <= workers && workers <= workersMax && workersMax <= DATA_WORKERS_MAX, `${workers} data workers`);
  const openFilesMax = Math.min(raiseOpenFilesLimit(), options.openFilesMax ?? Number.POSITIVE_INFINITY);
  const descriptorsMax = Math.floor(openFilesMax * DESCRIPTORS_SHARE);
  using undo = new UndoStack();
  const rootFd = openImageDirectory(imageDir);
  undo.defer(() => close(rootFd));
  const mountpoint = checkMountpoint(imageDir, options.mountpoint);
  const fuseFds = [openFuseDevice()];
  undo.defer(() => {
    for (const fd of fuseFds) close(fd);
  });
  const mount = mountFuse(fuseFds[0]!, imageDir, mountpoint);
  undo.defer(() => mount.abandon(options.log));
  const session = initSession(fuseFds[0]!, options.passthrough);
  while (fuseFds.length < workersMax) fuseFds.push(cloneFuseDevice(fuseFds[0]!));
  const mounted = new KernelMount(options, mount, rootFd, fuseFds, session, descriptorsMax);
  undo.keep();
  try {
    await mounted.ready;
  } catch (cause) {
    mount.abandon(options.log);
    await mounted.closed;
    throw new MigrateFsError('INTERNAL', 'the file system threads did not start', { cause });
  }
  options.log('info', 'mounted', {
    imageDir,
    mountpoint,
    workers,
    workersMax,
    kernelProtocol: `7.${session.kernelMinor}`,
    passthrough: session.passthrough,
  });
  return mounted;
};
