/**
 * What a daemon serves besides the mount: the replica thread, brokers and the control API. Loaded while the threads of the
 * mount start: guests may be waiting for those.
 */
import { readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import type { Logger } from 'pino';
import type { HotSpotsConfig } from './broker/hot-spots/config.js';
import { openBrokers } from './brokers.js';
import { serveControl } from './control/control-server.js';
import type { MountedFileSystem } from './fs/mounted-file-system.js';
import { systemClock } from './leaves/clock.js';
import type { DaemonOptions } from './leaves/daemon-options.js';
import type { LogSink } from './leaves/log-sink.js';
import type { DaemonStatus } from './leaves/migration.js';
import { startReplica } from './replica/replica-client.js';
import type { StopRequests } from './stop-requests.js';
import { Unmounting } from './unmounting.js';

/** From `build/src/` to the package. */
const PACKAGE_JSON = new URL('../../package.json', import.meta.url);

const version = (): string =>
  (JSON.parse(readFileSync(PACKAGE_JSON, 'utf8')) as { readonly version: string }).version;

type Replica = Awaited<ReturnType<typeof startReplica>>;

interface ServingOptions {
  readonly options: DaemonOptions;
  readonly hotSpots: HotSpotsConfig;
  readonly fileSystem: MountedFileSystem;
  readonly stops: StopRequests;
  readonly log: Logger;
  readonly sink: LogSink;
}

/** Serves the control port until the mount is gone. */
const serveControlPort = async (
  { options, hotSpots, fileSystem, stops, log, sink }: ServingOptions,
  replica: Replica,
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
  // Nobody asks the replica thread anything once it has ended.
  fileSystem.onGone(async () => {
    try {
      await control.close();
      await brokers.close();
    } finally {
      await replica.shutdown();
    }
  });
  await fileSystem.closed;
};

/**
 * Serves until the mount is gone. Errors: INVALID_ARGUMENT, UNAVAILABLE, FAILED_PRECONDITION: an address cannot be
 * listened on; the mount is then as it was.
 */
export const serveUntilUnmounted = async (serving: ServingOptions): Promise<void> => {
  const { data, peerTimeout, blockSize, netLimit, tls } = serving.options;
  const replica = await startReplica({
    fileSystem: serving.fileSystem,
    data,
    peerTimeout,
    blockSize,
    netLimit,
    ...(tls ? { tls } : {}),
    log: serving.sink,
  });
  serving.fileSystem.onGone(() => replica.shutdown());
  try {
    await serveControlPort(serving, replica);
  } finally {
    await replica.shutdown();
  }
};
