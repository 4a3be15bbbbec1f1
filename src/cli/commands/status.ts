import { Command } from 'commander';
import type { ControlClient } from '../../control/control-client.js';
import type { BrokerSnapshot } from '../../leaves/broker.js';
import { systemClock } from '../../leaves/clock.js';
import { formatDuration } from '../../leaves/duration.js';
import { MigrateFsError } from '../../leaves/errors.js';
import type { DaemonStatus, MigrationSnapshot } from '../../leaves/migration.js';
import { isFinal } from '../../leaves/migration.js';
import { formatRate, formatSize } from '../../leaves/quantity.js';
import type { Millis } from '../../leaves/units.js';
import { brokerRows, limitsLine } from '../broker-rows.js';
import { follow } from '../follow.js';
import { linkTable } from '../link-table.js';
import type { ClientOptions } from '../option-parsers.js';
import { addClientOptions, checkedBy, nonEmpty, withClient } from '../option-parsers.js';
import {
  deadlineMargin,
  dirtyBytes,
  endLine,
  percent,
  progressLine,
  stateWords,
  table,
  toJson,
} from '../render.js';
import { reporterFor } from '../reporter.js';

const HELP = `
Without an id: the daemon (version, pid, mount, addresses), the links whose load it knows, and a table of its migrations.
With an id: that migration in detail, with its broker: how much time it has to spare, what was decided last and why.
--watch follows until the migration ends; without an id until Ctrl-C.

Examples:
  migratefs status
  migratefs status 7e9d59369d58 --watch
  migratefs status --json | jq -r '.migrations[] | select(.state == "mirroring").id'`;

interface StatusFlags extends ClientOptions {
  readonly watch: boolean;
  readonly json: boolean;
}

const daemonLines = (daemon: DaemonStatus, now: Millis): string =>
  `migratefs ${daemon.version}, pid ${daemon.pid} on ${daemon.hostname}, ` +
  `up ${formatDuration(Math.max(0, now - daemon.startedAt))}\n` +
  `${daemon.imageDir} mounted ${daemon.mountpoint === daemon.imageDir ? 'in place' : `at ${daemon.mountpoint}`} ` +
  `(transport ${daemon.transport})\n` +
  `control ${daemon.controlAddress}, data ${daemon.dataAddress}`;

const HEADINGS = [
  'ID',
  'ROLE',
  'STATE',
  'DONE',
  'LEFT',
  'DIRTY',
  'RATE',
  'ETA',
  'DEADLINE',
  'PEER',
  'IMAGES',
];

const migrationTable = (migrations: readonly MigrationSnapshot[], now: Millis): string =>
  migrations.length === 0
    ? 'no migrations'
    : table([
        HEADINGS,
        ...migrations.map((snapshot) => [
          snapshot.id,
          snapshot.role,
          stateWords(snapshot.state),
          percent(snapshot),
          formatSize(snapshot.bytesLeft),
          formatSize(dirtyBytes(snapshot)),
          isFinal(snapshot.state) ? '-' : formatRate(snapshot.netRate),
          snapshot.eta === undefined ? '-' : formatDuration(snapshot.eta),
          deadlineMargin(snapshot, now) ?? '-',
          snapshot.peer,
          snapshot.images.map(({ name }) => name).join(','),
        ]),
      ]);

const time = (instant: Millis): string => new Date(instant).toISOString();

/** Undefined: it has none, or the daemon knows of no brokers. */
const brokerOf = async (client: ControlClient, id: string): Promise<BrokerSnapshot | undefined> => {
  try {
    return await client.broker(id);
  } catch (error) {
    if (error instanceof MigrateFsError && ['NOT_FOUND', 'UNIMPLEMENTED'].includes(error.code))
      return undefined;
    throw error;
  }
};

const migrationDetails = (
  snapshot: MigrationSnapshot,
  broker: BrokerSnapshot | undefined,
  now: Millis,
): string => {
  const rows: (readonly [string, string])[] = [
    ['migration', `${snapshot.id}, ${snapshot.role} side, peer ${snapshot.peer}`],
    ['state', snapshot.endedAt === undefined ? progressLine(snapshot, now) : endLine(snapshot)],
    ['started', time(snapshot.startedAt)],
    ...(snapshot.deadline === undefined ? [] : [['deadline', time(snapshot.deadline)] as const]),
    ['cutover', `${snapshot.cutover}, priority ${snapshot.priority}`],
    [
      'bytes',
      `${formatSize(snapshot.bytesTotal)} at the start, ${formatSize(snapshot.bytesLeft)} left, ` +
        `${formatSize(snapshot.bytesSent)} sent, ${formatSize(snapshot.bytesResent)} resent, ` +
        `${formatSize(snapshot.bytesMirrored)} mirrored`,
    ],
    [
      'rates',
      `network ${formatRate(snapshot.netRate)}, guest writes ${formatRate(snapshot.writeRate)}, ` +
        `dirty ${formatRate(snapshot.dirtyRate)}`,
    ],
    ['limits', limitsLine(snapshot)],
    ...(broker ? brokerRows(broker, now) : []),
    ...(snapshot.error ? [['error', `${snapshot.error.code}: ${snapshot.error.message}`] as const] : []),
    ...snapshot.images.map(
      (image) =>
        [
          'image',
          `${image.name}: ${formatSize(image.size)}, ${formatSize(image.allocated)} allocated, ` +
            `${formatSize(image.left)} left, ${formatSize(image.dirty)} dirty, generation ${image.generation}`,
        ] as const,
    ),
  ];
  return table(rows);
};

const overview = async (client: ControlClient, json: boolean): Promise<void> => {
  const [daemon, migrations] = await Promise.all([client.status(), client.list()]);
  if (json) {
    console.log(toJson({ daemon, migrations }));
    return;
  }
  const now = systemClock.wall();
  const links = daemon.links ? `\n\n${linkTable(daemon.links)}` : '';
  console.log(`${daemonLines(daemon, now)}${links}\n\n${migrationTable(migrations, now)}`);
};

/** Follows all migrations until the daemon ends: a table that is redrawn on a terminal, else lines. */
const watchAll = async (client: ControlClient, json: boolean): Promise<void> => {
  if (json || !process.stdout.isTTY) {
    const reporter = reporterFor(systemClock, { json, named: true });
    for await (const snapshot of client.watch('')) reporter.show(snapshot);
  } else {
    const daemon = await client.status();
    const migrations = new Map<string, MigrationSnapshot>();
    const draw = (): void => {
      const now = systemClock.wall();
      const text = `${daemonLines(daemon, now)}\n\n${migrationTable([...migrations.values()], now)}`;
      process.stdout.write(`\u001b[H\u001b[J${text}\n`);
    };
    draw();
    for await (const snapshot of client.watch('')) {
      migrations.set(snapshot.id, snapshot);
      draw();
    }
  }
  throw new MigrateFsError('UNAVAILABLE', `the daemon at ${client.server} stopped reporting`);
};

const status = async (id: string | undefined, flags: StatusFlags): Promise<void> => {
  await withClient(flags, async (client) => {
    if (id === undefined) {
      await (flags.watch ? watchAll(client, flags.json) : overview(client, flags.json));
      return;
    }
    if (!flags.watch) {
      const [snapshot, broker] = await Promise.all([client.get(id), brokerOf(client, id)]);
      console.log(
        flags.json
          ? toJson({ ...snapshot, ...(broker && { broker }) })
          : migrationDetails(snapshot, broker, systemClock.wall()),
      );
      return;
    }
    const reporter = reporterFor(systemClock, { json: flags.json, named: false });
    // Watching changes nothing: Ctrl-C ends it as usual, with the terminal as it was.
    const onInterrupt = (): void => {
      reporter.end();
      process.exit(130);
    };
    process.once('SIGINT', onInterrupt);
    try {
      await follow(client, id, { reporter, until: 'end', again: 'start watching again when it is back' });
    } finally {
      reporter.end();
      process.off('SIGINT', onInterrupt);
    }
  });
};

export const statusCommand = (): Command =>
  addClientOptions(
    new Command('status')
      .description('show the daemon and its migrations, or one migration')
      .argument('[id]', 'id of a migration', checkedBy(nonEmpty))
      .option('--watch', 'go on showing what changes', false)
      .option('--json', 'one object, or with --watch one a line', false),
  )
    .addHelpText('after', HELP)
    .action(status);
