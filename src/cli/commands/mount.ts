import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { Command, CommanderError, Option } from 'commander';
import type { DaemonOptions, LogLevel, Transport } from '../../leaves/daemon-options.js';
import { BLOCK_SIZE_MAX, BLOCK_SIZE_MIN, LOG_LEVELS, TRANSPORTS } from '../../leaves/daemon-options.js';
import { parseDuration } from '../../leaves/duration.js';
import { MigrateFsError } from '../../leaves/errors.js';
import type { HostPort } from '../../leaves/host-port.js';
import { parseHostPort } from '../../leaves/host-port.js';
import { parseRate, parseSize } from '../../leaves/quantity.js';
import type { Bytes, BytesPerSecond, Millis } from '../../leaves/units.js';
import { UNLIMITED } from '../../leaves/units.js';
import {
  addTlsOptions,
  CONTROL_DEFAULT,
  checkedBy,
  DATA_DEFAULT,
  tlsOf,
  wholeNumber,
} from '../option-parsers.js';

const WORKERS_MAX = 64;
const WORKERS_DEFAULT = 2;
const WORKERS_MAX_DEFAULT = 8;
const PEER_TIMEOUT_DEFAULT = '5s';
const PEER_TIMEOUT_MIN_MS = 100;
const PEER_TIMEOUT_MAX_MS = 600_000;
const HOT_SPOTS_KEY = 'hot-spots';
/** Keys of a configuration file that are arguments on the command line. */
const ARGUMENT_KEYS = ['image-dir', 'mountpoint'] as const;

const HELP = `
Serves the images in <image-dir> at [mountpoint] until it is unmounted or gets SIGTERM or SIGINT. Without a mountpoint
it mounts over the directory itself, so that hypervisors need no new paths. Runs in the foreground; the log goes to
stdout, as JSON unless that is a terminal.

--config names a JSON file with the same keys as the options, and image-dir and mountpoint:
  {"image-dir": "/var/lib/images", "listen": "10.0.0.1:7070", "data": "10.0.0.1:7071", "workers": 4,
   "tls-ca": "/etc/migratefs/ca.pem", "tls-cert": "/etc/migratefs/host.pem", "tls-key": "/etc/migratefs/host.key"}
An option on the command line wins over the file. In the file, hot-spots may be the object itself (docs/HOTSPOTS.md).

Examples:
  migratefs mount /var/lib/images
  migratefs mount /var/lib/images /mnt/images --workers 4
  migratefs mount --config /etc/migratefs/daemon.json
  migratefs mount /srv/b --listen 127.0.0.1:7170 --data 127.0.0.1:7171     a second daemon on one host`;

interface MountFlags {
  readonly listen: HostPort;
  readonly data: HostPort;
  readonly transport: Transport;
  readonly workers: number;
  readonly workersMax?: number;
  readonly passthrough: 'auto' | 'off';
  readonly config?: string;
  readonly logLevel: LogLevel;
  readonly peerTimeout: Millis;
  readonly blockSize?: Bytes;
  readonly netLimit: BytesPerSecond;
  /** As read from its file. */
  readonly hotSpots?: unknown;
  readonly tlsCa?: string;
  readonly tlsCert?: string;
  readonly tlsKey?: string;
  readonly insecure: boolean;
}

const parsePeerTimeout = (text: string): Millis => {
  const timeout = parseDuration(text);
  if (timeout < PEER_TIMEOUT_MIN_MS || timeout > PEER_TIMEOUT_MAX_MS)
    throw new MigrateFsError('INVALID_ARGUMENT', 'give a duration from 100ms to 10m');
  return timeout;
};

const parseBlockSize = (text: string): Bytes => {
  const size = parseSize(text);
  if (size < BLOCK_SIZE_MIN || size > BLOCK_SIZE_MAX || !Number.isInteger(Math.log2(size)))
    throw new MigrateFsError('INVALID_ARGUMENT', 'give a power of two from 4KiB to 1MiB');
  return size;
};

const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** Object in a configuration file. INVALID_ARGUMENT: unreadable, or not one JSON object. */
const readConfig = (path: string): Readonly<Record<string, unknown>> => {
  try {
    const value: unknown = JSON.parse(readFileSync(path, 'utf8'));
    if (isObject(value)) return value;
  } catch (error) {
    throw new MigrateFsError('INVALID_ARGUMENT', `cannot read ${path}: ${(error as Error).message}`, {
      cause: error,
    });
  }
  throw new MigrateFsError('INVALID_ARGUMENT', `${path} does not hold one JSON object`);
};

const usageError = (command: Command, message: string): CommanderError => {
  command.configureOutput().outputError?.(`error: ${message}\n`, (text) => process.stderr.write(text));
  return new CommanderError(2, 'migratefs.usage', message);
};

/** Gives every option that the command line left at its default the value of the file. */
const applyConfig = (command: Command, path: string): Partial<Record<string, string>> => {
  const found: Partial<Record<string, string>> = {};
  for (const [key, value] of Object.entries(readConfig(path))) {
    if ((ARGUMENT_KEYS as readonly string[]).includes(key) && typeof value === 'string') {
      found[key] = value;
      continue;
    }
    const option = command.options.find(({ long }) => long === `--${key}` && key !== 'config');
    if (!option) throw usageError(command, `${path}: unknown key '${key}'`);
    // What is a file of its own on the command line may be written out here.
    const inline = key === HOT_SPOTS_KEY && isObject(value);
    const fits = option.isBoolean()
      ? typeof value === 'boolean'
      : inline || ['string', 'number'].includes(typeof value);
    if (!fits) throw usageError(command, `${path}: '${key}' cannot be ${JSON.stringify(value)}`);
    const name = option.attributeName();
    if (!['default', undefined].includes(command.getOptionValueSource(name))) continue;
    try {
      const parsed = option.parseArg && !inline ? option.parseArg(String(value), undefined) : value;
      command.setOptionValueWithSource(name, parsed, 'config');
    } catch (error) {
      throw usageError(command, `${path}: '${key}': ${(error as Error).message}`);
    }
  }
  return found;
};

const mount = async (
  imageDir: string | undefined,
  mountpoint: string | undefined,
  _flags: unknown,
  command: Command,
): Promise<void> => {
  const { config } = command.opts<MountFlags>();
  const fromFile = config === undefined ? {} : applyConfig(command, config);
  const directory = imageDir ?? fromFile['image-dir'];
  if (directory === undefined) throw usageError(command, "missing required argument 'image-dir'");
  const flags = command.opts<MountFlags>();
  const tls = tlsOf(flags);
  const absolute = resolve(directory);
  const options: DaemonOptions = {
    imageDir: absolute,
    // A mountpoint in the file belongs to the image-dir in the file.
    mountpoint: resolve(
      mountpoint ?? (imageDir === undefined ? fromFile['mountpoint'] : undefined) ?? absolute,
    ),
    listen: flags.listen,
    data: flags.data,
    transport: flags.transport,
    workers: flags.workers,
    workersMax: Math.max(flags.workers, flags.workersMax ?? WORKERS_MAX_DEFAULT),
    passthrough: flags.passthrough === 'auto',
    ...(tls && { tls }),
    insecure: flags.insecure,
    logLevel: flags.logLevel,
    logPretty: process.stdout.isTTY === true,
    peerTimeout: flags.peerTimeout,
    ...(flags.blockSize === undefined ? {} : { blockSize: flags.blockSize }),
    netLimit: flags.netLimit,
    ...(flags.hotSpots === undefined ? {} : { hotSpots: flags.hotSpots }),
  };
  // Loaded here, so that the client commands start without the file system and its libraries.
  const { runDaemon } = await import('../../daemon.js');
  await runDaemon(options);
};

export const mountCommand = (): Command => {
  const command = new Command('mount')
    .description('serve a directory of disk images as a file system')
    .argument('[image-dir]', 'directory with the images; required here or in the file of --config')
    .argument('[mountpoint]', 'where to mount it (default: over the directory itself)')
    .addOption(
      new Option('--listen <host:port>', 'address of the control API')
        .argParser(checkedBy(parseHostPort))
        .default(parseHostPort(CONTROL_DEFAULT), CONTROL_DEFAULT),
    )
    .addOption(
      new Option('--data <host:port>', 'address where other daemons send images')
        .argParser(checkedBy(parseHostPort))
        .default(parseHostPort(DATA_DEFAULT), DATA_DEFAULT),
    )
    .addOption(
      new Option('--transport <kind>', 'how to talk to the kernel').choices(TRANSPORTS).default('kernel'),
    )
    .addOption(
      new Option('--workers <n>', 'threads that serve reads and writes, at least')
        .argParser(checkedBy(wholeNumber(1, WORKERS_MAX)))
        .default(WORKERS_DEFAULT),
    )
    .addOption(
      new Option(
        '--workers-max <n>',
        'threads that serve reads and writes, while requests wait (default: 8)',
      ).argParser(checkedBy(wholeNumber(1, WORKERS_MAX))),
    )
    .addOption(
      new Option('--passthrough <when>', 'let the kernel read files opened for reading only by itself')
        .choices(['auto', 'off'])
        .default('auto'),
    )
    .addOption(new Option('--config <file>', 'JSON file with the same keys as these options'))
    .addOption(new Option('--log-level <level>', 'what to log').choices(LOG_LEVELS).default('info'))
    .addOption(
      new Option('--peer-timeout <duration>', 'how long a silent peer is waited for')
        .argParser(checkedBy(parsePeerTimeout))
        .default(parsePeerTimeout(PEER_TIMEOUT_DEFAULT), PEER_TIMEOUT_DEFAULT),
    )
    .addOption(
      new Option(
        '--block-size <size>',
        'what one dirty bit covers: 4KiB to 1MiB (default: 4KiB for images up to 32 GiB, up to 64KiB for larger ones)',
      ).argParser(checkedBy(parseBlockSize)),
    )
    .addOption(
      new Option('--net-limit <rate>', 'network limit of all migrations of this host together')
        .argParser(checkedBy(parseRate))
        .default(UNLIMITED, 'unlimited'),
    )
    .addOption(
      new Option(
        `--${HOT_SPOTS_KEY} <file>`,
        'JSON file: where saturated links are known from (default: the interfaces of this host)',
      ).argParser(checkedBy(readConfig)),
    );
  return addTlsOptions(command)
    .option('--insecure', 'serve other than loopback addresses without certificates', false)
    .addHelpText('after', HELP)
    .action(mount);
};
