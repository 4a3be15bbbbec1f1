/** The composition root: a mount, the replica thread and the control API, and the order in which they end. */
import { readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import type { Logger } from 'pino';
import { pino } from 'pino';
import type { HotSpotsConfig } from './broker/hot-spots/config.js';
import { checkedHotSpots, openBrokers } from './brokers.js';
import { serveControl } from './control/control-server.js';
import { mountFuseNative } from './fs/fuse-native/mount-fuse-native.js';
import { mountKernel } from './fs/kernel/mount-kernel.js';
import type { MountedFileSystem } from './fs/mounted-file-system.js';
import { pause, systemClock } from './leaves/clock.js';
import type { DaemonOptions } from './leaves/daemon-options.js';
import type { LogSink } from './leaves/log-sink.js';
import type { DaemonStatus } from './leaves/migration.js';
import { assertSafeListener } from './leaves/tls-identity.js';
import { millis } from './leaves/units.js';
import { startReplica } from './replica/replica-client.js';
import { Unmounting } from './unmounting.js';

/** From `build/src/` to the package. */
const PACKAGE_JSON = new URL('../../package.json', import.meta.url);

const version = (): string =>
  (JSON.parse(readFileSync(PACKAGE_JSON, 'utf8')) as { readonly version: string }).version;

const openLog = (options: DaemonOptions): Logger =>
  pino({
    level: options.logLevel,
    base: { pid: process.pid },
    ...(options.logPretty
      ? { transport: { target: 'pino-pretty', options: { ignore: 'pid,hostname' } } }
      : {}),
  });

const STOP_SIGNALS: readonly NodeJS.Signals[] = ['SIGINT', 'SIGTERM', 'SIGHUP'];
/** How long a daemon that could not start waits for its mount to go. */
const UNDO_MAX = millis(2_000);

/** What the process was asked by signals from its first moment on; a mount must never outlive it. */
class StopRequests implements Disposable {
  #listener: (signal: NodeJS.Signals) => void = () => {};
  #early: NodeJS.Signals | undefined;
  readonly #onSignal = (signal: NodeJS.Signals): void => {
    this.#early = signal;
    this.#listener(signal);
  };

  constructor() {
    for (const signal of STOP_SIGNALS) process.on(signal, this.#onSignal);
  }

  /** Calls `listener` for each signal from now on, and at once for one that has come already. */
  listen(listener: (signal: NodeJS.Signals) => void): void {
    this.#listener = listener;
    if (this.#early) listener(this.#early);
  }

  [Symbol.dispose](): void {
    for (const signal of STOP_SIGNALS) process.off(signal, this.#onSignal);
  }
}

/** A daemon with a defect must end: leaving detaches the mount, and whoever waits on it gets an error. */
const exitOnDefect = (log: Logger): void => {
  const onDefect = (error: unknown): void => {
    log.fatal({ err: error }, 'internal error; the mount ends');
    process.exit(1);
  };
  process.on('uncaughtException', onDefect);
  process.on('unhandledRejection', onDefect);
};

type Replica = Awaited<ReturnType<typeof startReplica>>;

/** Serves the control port until the mount is gone. */
const serveUntilUnmounted = async (
  options: DaemonOptions,
  hotSpots: HotSpotsConfig,
  fileSystem: MountedFileSystem,
  replica: Replica,
  stops: StopRequests,
  log: Logger,
  sink: LogSink,
): Promise<void> => {
  const { imageDir, mountpoint, transport, tls } = options;
  const { dataAddress } = replica;
  const startedAt = systemClock.wall();
  let controlAddress = '';
  const unmounting = new Unmounting({
    fileSystem,
    migrations: replica,
    mountpoint,
    clock: systemClock,
    log: sink,
  });
  const brokers = await openBrokers({
    ...options,
    hotSpots,
    migrations: replica,
    ownAddress: () => controlAddress,
    clock: systemClock,
    log: sink,
  });
  const status = (): DaemonStatus => ({
    version: version(),
    pid: process.pid,
    hostname: hostname(),
    imageDir,
    mountpoint,
    transport,
    controlAddress,
    dataAddress,
    startedAt,
    links: brokers.hotSpots.loads(),
  });
  const control = await serveControl({
    service: { ...replica, start: brokers.start },
    brokers: brokers.control,
    status,
    unmount: (request) => unmounting.request(request),
    listen: options.listen,
    insecure: options.insecure,
    ...(tls ? { tls } : {}),
    log: sink,
  }).catch(async (error: unknown) => {
    await brokers.close();
    throw error;
  });
  controlAddress = control.address;
  if (!tls)
    log.warn('no certificates: whoever reaches the control and data ports can read and change images');
  log.info({ controlAddress, dataAddress, imageDir, mountpoint, transport }, 'ready');
  stops.listen((signal) => unmounting.signal(signal));
  await fileSystem.closed;
  await control.close();
  await brokers.close();
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
  const log = openLog(options);
  const sink: LogSink = (level, message, fields) => log[level](fields ?? {}, message);
  const { imageDir, mountpoint, workers, workersMax, passthrough, tls } = options;
  const mount = options.transport === 'kernel' ? mountKernel : mountFuseNative;
  using stops = new StopRequests();
  const fileSystem = await mount({ imageDir, mountpoint, workers, workersMax, passthrough, log: sink });
  exitOnDefect(log);
  try {
    const { data, peerTimeout, blockSize, netLimit } = options;
    const replica = await startReplica({
      fileSystem,
      data,
      peerTimeout,
      blockSize,
      netLimit,
      ...(tls ? { tls } : {}),
      log: sink,
    });
    try {
      await serveUntilUnmounted(options, hotSpots, fileSystem, replica, stops, log, sink);
    } finally {
      await replica.shutdown();
    }
    log.info('unmounted');
  } catch (error) {
    // Files that are open on it keep a detached mount alive; the process ends all the same.
    await Promise.race([fileSystem.unmount({ lazy: true }), pause(systemClock, UNDO_MAX)]).catch(() => {});
    throw error;
  }
};
