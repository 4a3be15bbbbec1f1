/** The composition root of the Migrations Scheduler: its queue, the daemons, the drivers, hot spots and its API. */
import { readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import type { HotSpotsConfig } from './broker/hot-spots/config.js';
import { withFilesIn } from './broker/hot-spots/config.js';
import { openHotSpots } from './broker/hot-spots/open-hot-spots.js';
import { LibvirtDriver } from './broker/hypervisor/libvirt-driver.js';
import { QemuDriver } from './broker/hypervisor/qemu-driver.js';
import { admit } from './broker/policy/admission.js';
import { plan } from './broker/policy/plan.js';
import { checkTopology, parseTopology, type Topology } from './broker/policy/topology.js';
import type { DriverConfig } from './broker/scheduler/driver-config.js';
import type { ExecDriverOptions } from './broker/scheduler/exec-driver.js';
import { ExecDriver } from './broker/scheduler/exec-driver.js';
import type { HypervisorDriver } from './broker/scheduler/hypervisor-driver.js';
import { MoveSlots } from './broker/scheduler/move-slots.js';
import { checkPrograms } from './broker/scheduler/program-check.js';
import { Scheduler } from './broker/scheduler/scheduler.js';
import type { SchedulerConfig } from './broker/scheduler/scheduler-config.js';
import { schedulerConfigOf, schedulerHotSpotsOf } from './broker/scheduler/scheduler-config.js';
import { TaskBook } from './broker/scheduler/task-book.js';
import { TaskStore } from './broker/scheduler/task-store.js';
import { serveScheduler } from './control/scheduler-server.js';
import { DaemonHosts } from './daemon-hosts.js';
import { openLog } from './daemon-log.js';
import { systemClock } from './leaves/clock.js';
import type { LogLevel } from './leaves/daemon-options.js';
import { MigrateFsError } from './leaves/errors.js';
import type { LogSink } from './leaves/log-sink.js';
import type { SchedulerStatus } from './leaves/scheduler.js';
import { KEY_NAMES } from './leaves/setting-names.js';
import { assertSafeListener, readTlsIdentity } from './leaves/tls-identity.js';

/** From `build/src/` to the package. */
const PACKAGE_JSON = new URL('../../package.json', import.meta.url);
/** What anyone who reaches the port could do. */
const SCHEDULER_HARM = 'move virtual machines';
const STOP_SIGNALS: readonly NodeJS.Signals[] = ['SIGINT', 'SIGTERM', 'SIGHUP'];

export interface SchedulerDaemonOptions {
  /** Path of the JSON configuration. */
  readonly config: string;
  readonly logLevel: LogLevel;
  readonly logPretty: boolean;
}

const invalid = (message: string, cause?: unknown): MigrateFsError =>
  new MigrateFsError('INVALID_ARGUMENT', message, { cause });

const readJson = (path: string): unknown => {
  try {
    return JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    throw invalid(`cannot read ${path}: ${(error as Error).message}`, error);
  }
};

/** Relative paths are relative to the file in which they stand. */
const readHotSpots = ({ hotSpots }: SchedulerConfig, folder: string): HotSpotsConfig => {
  if (typeof hotSpots === 'object') return withFilesIn(folder, hotSpots);
  const path = resolve(folder, hotSpots);
  return withFilesIn(dirname(path), schedulerHotSpotsOf(readJson(path)));
};

const readTopology = ({ topology }: SchedulerConfig, folder: string): Topology => {
  if (typeof topology === 'object') return checkTopology(topology);
  const path = resolve(folder, topology);
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    throw invalid(`cannot read the topology ${path}: ${(error as Error).message}`, error);
  }
  return parseTopology(text);
};

const stopSignal = (): Promise<void> =>
  new Promise((resolvePromise) => {
    for (const signal of STOP_SIGNALS) process.on(signal, () => resolvePromise());
  });

/** What drivers inherit. Not what is meant for this program alone. */
const driverEnvironment = (): NodeJS.ProcessEnv =>
  Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('MIGRATEFS_')));

const driverOf = (
  driver: DriverConfig,
  commands: Pick<ExecDriverOptions, 'folder' | 'clock' | 'env'>,
  log: LogSink,
): HypervisorDriver => {
  if (driver.type === 'exec') return new ExecDriver({ ...driver, ...commands });
  if (driver.type === 'libvirt') return new LibvirtDriver({ ...driver, ...commands, log });
  const { start: command, timeout } = driver;
  const starter = command && new ExecDriver({ command, timeout, ...commands });
  return new QemuDriver({ ...driver, clock: commands.clock, log, ...(starter && { starter }) });
};

/**
 * Serves until SIGINT, SIGTERM or SIGHUP. Ending it ends neither migrations nor drivers: the next one goes on with them.
 * Errors: INVALID_ARGUMENT (configuration), FAILED_PRECONDITION (address or queue is taken) with cause and remedy.
 */
export const runScheduler = async (options: SchedulerDaemonOptions): Promise<void> => {
  const config = schedulerConfigOf(readJson(options.config));
  const folder = dirname(resolve(options.config));
  checkPrograms(config.drivers);
  const topology = readTopology(config, folder);
  const hotSpotsConfig = readHotSpots(config, folder);
  const { ca, cert, key } = config.tlsFiles;
  const inFolder = (path: string | undefined): string | undefined =>
    path === undefined ? undefined : resolve(folder, path);
  const tls = readTlsIdentity({ ca: inFolder(ca), cert: inFolder(cert), key: inFolder(key) }, KEY_NAMES);
  const { listen, insecure, limits } = { ...config, limits: config.plan };
  assertSafeListener('scheduler', listen, { tls, insecure, named: KEY_NAMES }, SCHEDULER_HARM);
  const log = await openLog(options);
  const sink: LogSink = (level, message, fields) => log[level](fields ?? {}, message);
  const stopped = stopSignal();

  await using store = await TaskStore.open(resolve(folder, config.store));
  const clock = systemClock;
  await using hotSpots = await openHotSpots(hotSpotsConfig, {
    clock,
    log: sink,
    tls,
    insecure,
    named: KEY_NAMES,
    alertFile: join(store.folder, 'alerts.json'),
  });
  using hosts = new DaemonHosts({ addressesOf: (host) => topology.host(host), tls });
  const commands = { folder: join(store.folder, 'runs'), clock, env: driverEnvironment() };
  const drivers = new Map(config.drivers.map((driver) => [driver.name, driverOf(driver, commands, sink)]));
  const { vmmTime } = config;
  const book = new TaskBook({ store, clock, log: sink, vmmTime });
  await using scheduler = new Scheduler({
    ...config,
    limits,
    book,
    hosts,
    drivers,
    moves: new MoveSlots(config.movesPerHost),
    clock,
    log: sink,
    storeId: store.id,
    random: Math.random,
    paths: topology,
    checkHost: (name) => void topology.host(name),
    hotSpots,
    plan,
    admit,
  });
  const startedAt = clock.wall();
  const { version } = JSON.parse(readFileSync(PACKAGE_JSON, 'utf8')) as { readonly version: string };
  let address = '';
  const status = (): SchedulerStatus => ({
    version,
    pid: process.pid,
    address,
    store: store.folder,
    startedAt,
    waiting: scheduler.waiting,
    running: scheduler.running,
    ended: book.ended,
    hot: scheduler.hot(),
  });
  await using server = await serveScheduler({
    ...{ scheduler, status, listen, tls, insecure },
    named: KEY_NAMES,
    log: sink,
  });
  ({ address } = server);
  scheduler.begin();
  if (!tls) log.warn('no certificates: whoever reaches this port can move virtual machines');
  log.info({ address, store: store.folder, tasks: book.open }, 'ready');
  await stopped;
  log.info('stopping; migrations and drivers go on');
};
