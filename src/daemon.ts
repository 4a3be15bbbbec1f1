/** A daemon: its mount first, what else it serves once that is there, and the order in which they end. */
import type { Logger } from 'pino';
import { checkedHotSpots } from './broker/hot-spots/open-hot-spots.js';
import { openLog } from './daemon-log.js';
import { mountKernel } from './fs/kernel/mount-kernel.js';
import type { MountedFileSystem, MountOptions } from './fs/mounted-file-system.js';
import { pause, systemClock } from './leaves/clock.js';
import type { DaemonOptions, Transport } from './leaves/daemon-options.js';
import type { LogSink } from './leaves/log-sink.js';
import { assertSafeListener } from './leaves/tls-identity.js';
import { millis } from './leaves/units.js';
import { StopRequests } from './stop-requests.js';

/** Only the transport that is wanted is loaded. */
const mountWith = async (transport: Transport, options: MountOptions): Promise<MountedFileSystem> => {
  if (transport === 'kernel') return mountKernel(options);
  const { mountFuseNative } = await import('./fs/fuse-native/mount-fuse-native.js');
  return mountFuseNative(options);
};

/** How long a daemon that could not start waits for its mount to go. */
const UNDO_MAX = millis(2_000);

/** A daemon with a defect must end: leaving detaches the mount, and whoever waits on it gets an error. */
const exitOnDefect = (log: Logger): void => {
  const onDefect = (error: unknown): void => {
    // Not `fatal`: pino then tries for ever to write it to a disk that is full.
    log.error({ err: error }, 'internal error; the mount ends');
    process.exit(1);
  };
  process.on('uncaughtException', onDefect);
  process.on('unhandledRejection', onDefect);
};

/**
 * Mounts, serves, and resolves once unmounted. SIGINT, SIGTERM and SIGHUP unmount; while files are open on the mount, or
 * images migrate, they are refused with a line in the log (see `Unmounting`).
 * Errors: FAILED_PRECONDITION, NOT_FOUND, PERMISSION_DENIED, INVALID_ARGUMENT, UNAVAILABLE with cause and remedy.
 */
export const runDaemon = async (options: DaemonOptions): Promise<void> => {
  assertSafeListener('control', options.listen, options);
  assertSafeListener('data', options.data, options);
  const hotSpots = checkedHotSpots(options);
  const log = await openLog(options);
  const sink: LogSink = (level, message, fields) => log[level](fields ?? {}, message);
  const { imageDir, mountpoint, workers, workersMax, passthrough } = options;
  using stops = new StopRequests();
  const loading = import('./serving.js');
  loading.catch(() => {}); // awaited once mounted
  const fileSystem = await mountWith(options.transport, {
    imageDir,
    mountpoint,
    workers,
    workersMax,
    passthrough,
    log: sink,
  });
  exitOnDefect(log);
  try {
    const { serveUntilUnmounted } = await loading;
    await serveUntilUnmounted({ options, hotSpots, fileSystem, stops, log, sink });
    log.info('unmounted');
  } catch (error) {
    // Files that are open on it keep a detached mount alive; the process ends all the same.
    await Promise.race([fileSystem.unmount({ lazy: true }), pause(systemClock, UNDO_MAX)]).catch(() => {});
    throw error;
  }
};
