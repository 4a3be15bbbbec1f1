import { MessageChannel, Worker } from 'node:worker_threads';
import type { MountedFileSystem } from '../fs/mounted-file-system.js';
import { systemClock } from '../leaves/clock.js';
import { MigrateFsError, revivedError } from '../leaves/errors.js';
import type { HostPort } from '../leaves/host-port.js';
import type { MigrationControl, MigrationSnapshot } from '../leaves/migration.js';
import { remotePort } from '../leaves/port-rpc.js';
import type { TlsIdentity } from '../leaves/tls-identity.js';
import type { Bytes, BytesPerSecond, Millis } from '../leaves/units.js';
import { millis } from '../leaves/units.js';
import type { ReplicaThreadData, ReplicaThreadEvent, ReplicaThreadMethods } from './thread-messages.js';

/** MB; see `service-thread.ts`. Copying allocates for each batch and frame, and nothing of it lives long. */
const YOUNG_GENERATION_MAX = 12;

/** After this long the thread is ended as it is: nobody uses the mount any more. */
const SHUTDOWN_MAX = millis(5_000);

export interface ReplicaOptions {
  readonly fileSystem: Pick<MountedFileSystem, 'ends' | 'transfer' | 'onInterrupt'>;
  /** Where peers connect to. */
  readonly data: HostPort;
  readonly peerTimeout: Millis;
  readonly blockSize?: Bytes | undefined;
  /** Of all migrations of this host together. */
  readonly netLimit: BytesPerSecond;
  readonly tls?: TlsIdentity;
  readonly log: (level: 'debug' | 'info' | 'warn' | 'error', message: string, fields?: object) => void;
}

/** The replica thread as the rest of the daemon sees it. */
export interface ReplicaClient extends MigrationControl {
  /** Where peers reach this host, as `host:port`. */
  readonly dataAddress: string;
  /** Ends the thread; guests that wait are answered, images are left as a lost peer would leave them. */
  shutdown(): Promise<void>;
}

/** Spawns the replica thread; resolves when peers can connect. UNAVAILABLE: its address cannot be listened on. */
export const startReplica = async (options: ReplicaOptions): Promise<ReplicaClient> => {
  const { fileSystem, data, peerTimeout, blockSize, netLimit, tls, log } = options;
  const control = new MessageChannel();
  const events = new MessageChannel();
  const workerData: ReplicaThreadData = {
    ends: fileSystem.ends,
    data,
    blockSize,
    netLimit,
    peerTimeout,
    tls,
    control: control.port2,
    events: events.port2,
  };
  const thread = new Worker(new URL('./replica-thread.js', import.meta.url), {
    name: 'replica',
    workerData,
    transferList: [...fileSystem.transfer, control.port2, events.port2],
    resourceLimits: { maxYoungGenerationSizeMb: YOUNG_GENERATION_MAX },
  });
  const listeners = new Set<(snapshot: MigrationSnapshot) => void>();
  const dataAddress = await new Promise<string>((resolve, reject) => {
    thread.once('exit', (code) => reject(new MigrateFsError('INTERNAL', `replica thread ended (${code})`)));
    events.port1.on('message', (event: ReplicaThreadEvent) => {
      switch (event.type) {
        case 'listening':
          resolve(event.address);
          return;
        case 'failed':
          reject(revivedError(event.error));
          void thread.terminate();
          return;
        case 'snapshot':
          for (const listener of listeners) listener(event.snapshot);
          return;
        case 'log':
          log(event.level, event.message, event.fields);
          return;
        default:
          event satisfies never;
      }
    });
  });
  const remote = remotePort<ReplicaThreadMethods>(control.port1);
  fileSystem.onInterrupt?.((unique) => void remote.interrupt(unique).catch(() => {})); // the thread has ended
  let ended: Promise<void> | undefined;
  const end = async (): Promise<void> => {
    let forget = (): void => {};
    const late = new Promise<void>((resolve) => {
      forget = systemClock.after(SHUTDOWN_MAX, resolve);
    });
    await Promise.race([remote.shutdown(), late]);
    forget();
    control.port1.close();
    events.port1.close();
    await thread.terminate();
  };
  return {
    dataAddress,
    start: (request) => remote.start(request),
    get: (id) => remote.get(id),
    list: () => remote.list(),
    setLimits: (id, change, by) => remote.setLimits(id, change, by),
    describeImages: (names) => remote.describeImages(names),
    pause: (id) => remote.pause(id),
    resume: (id) => remote.resume(id),
    cancel: (id, takeBack) => remote.cancel(id, takeBack),
    cutover: (id) => remote.cutover(id),
    verify: (what) => remote.verify(what),
    watch: (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    shutdown: () => {
      ended ??= end();
      return ended;
    },
  };
};
