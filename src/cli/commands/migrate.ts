import { Command, Option } from 'commander';
import type { ControlClient } from '../../control/control-client.js';
import type { BrokerChoice } from '../../leaves/broker.js';
import { systemClock } from '../../leaves/clock.js';
import type { Deadline } from '../../leaves/duration.js';
import { parseDeadline } from '../../leaves/duration.js';
import { MigrateFsError } from '../../leaves/errors.js';
import type { HostPort } from '../../leaves/host-port.js';
import { formatHostPort } from '../../leaves/host-port.js';
import type { CutoverPolicy, MigrationSnapshot } from '../../leaves/migration.js';
import { CUTOVER_POLICIES } from '../../leaves/migration.js';
import { parseRate } from '../../leaves/quantity.js';
import type { BytesPerSecond } from '../../leaves/units.js';
import { UNLIMITED } from '../../leaves/units.js';
import { assertCompleted, follow } from '../follow.js';
import { imageNameOf } from '../image-argument.js';
import { Interruption } from '../interruption.js';
import type { ClientOptions } from '../option-parsers.js';
import {
  addClientOptions,
  checkedBy,
  parsePeer,
  parsePercentage,
  wholeNumber,
  withClient,
} from '../option-parsers.js';
import { toJson } from '../render.js';
import type { Reporter } from '../reporter.js';
import { reporterFor } from '../reporter.js';

const PRIORITY_MAX = 9;

/** A floor without an end would be no limit at all. */
const parseFloor = (text: string): BytesPerSecond => {
  const rate = parseRate(text);
  if (rate === UNLIMITED) throw new MigrateFsError('INVALID_ARGUMENT', 'give a rate, such as 1MB/s');
  return rate;
};

const HELP = `
All images of one command are the disks of one VM: they become in sync together and are handed over together. An image
is named relative to the exported directory, or by its path below the mount point of the daemon.

Shows a progress bar on a terminal, and lines when piped. Ctrl-C cancels the migration and waits until it is cancelled;
a second Ctrl-C leaves at once.

Cutover: with on-first-write the target takes over when the VM that was resumed there writes for the first time; with
when-in-sync as soon as both sides are equal; with explicit only by \`migratefs cutover\`, which works always.

Its broker sets a network limit and a disk limit beside those given here, and the lower one counts: it yields where
links are hot, and slows the guest down where the deadline needs it. \`migratefs status ID\` says what it does and why.

Examples:
  migratefs migrate vm1/root.qcow2 vm1/data.raw --to host-b:7071 --deadline 10m
  migratefs migrate /var/lib/images/vm1.raw --to host-b:7071 --net-limit 50MB/s
  migratefs migrate vm1.raw --to host-b:7071 --until in-sync && resume-vm-on host-b
  id=$(migratefs migrate vm1.raw --to host-b:7071 --detach)`;

interface MigrateFlags extends ClientOptions {
  readonly to: HostPort;
  readonly cutover: CutoverPolicy;
  readonly netLimit: BytesPerSecond;
  readonly diskLimit: BytesPerSecond;
  readonly deadline?: Deadline;
  readonly priority: number;
  readonly danger?: number;
  readonly warning?: number;
  readonly important: boolean;
  readonly netFloor?: BytesPerSecond;
  readonly diskFloor?: BytesPerSecond;
  readonly broker: boolean;
  readonly until: 'in-sync' | 'completed';
  readonly detach: boolean;
  readonly requestId?: string;
  readonly json: boolean;
}

/** Undefined: nothing was said of it. */
const brokerChoice = (flags: MigrateFlags): BrokerChoice | undefined => {
  const { danger, warning, important, netFloor, diskFloor } = flags;
  if (!flags.broker) return 'off';
  const terms = {
    ...(important && { important }),
    ...(danger !== undefined && { danger }),
    ...(warning !== undefined && { warning }),
    ...(netFloor !== undefined && { floor: netFloor }),
    ...(diskFloor !== undefined && { diskFloor }),
  };
  return Object.keys(terms).length === 0 ? undefined : terms;
};

const start = async (
  client: ControlClient,
  images: readonly string[],
  flags: MigrateFlags,
): Promise<MigrationSnapshot> => {
  const daemon = await client.status();
  const { deadline, requestId } = flags;
  const broker = brokerChoice(flags);
  return client.start({
    images: images.map((image) => imageNameOf(image, daemon, process.cwd())),
    target: formatHostPort(flags.to),
    cutover: flags.cutover,
    netLimit: flags.netLimit,
    diskLimit: flags.diskLimit,
    priority: flags.priority,
    ...(broker !== undefined && { broker }),
    ...(deadline?.kind === 'at' && { deadline: deadline.instant }),
    ...(deadline?.kind === 'after' && { deadlineAfter: deadline.duration }),
    ...(requestId !== undefined && { requestId }),
  });
};

const startAndFollow = async (
  client: ControlClient,
  images: readonly string[],
  flags: MigrateFlags,
  reporter: Reporter,
): Promise<void> => {
  // Listens from before the start: a Ctrl-C during the call must not leave a migration behind that nobody wanted.
  using interruption = new Interruption(client, reporter);
  const { id } = await start(client, images, flags);
  interruption.arm(id);
  const last = await follow(client, id, {
    reporter,
    until: flags.until === 'in-sync' ? 'in-sync' : 'end',
    again: `look again with \`migratefs status ${id} --watch\``,
  });
  if (flags.until === 'in-sync' && (last.state === 'mirroring' || last.state === 'cutover')) return;
  assertCompleted(last);
};

const migrate = async (images: readonly string[], flags: MigrateFlags): Promise<void> => {
  await withClient(flags, async (client) => {
    if (flags.detach) {
      const snapshot = await start(client, images, flags);
      console.log(flags.json ? toJson(snapshot) : snapshot.id);
      return;
    }
    const reporter = reporterFor(systemClock, { json: flags.json, named: false });
    try {
      await startAndFollow(client, images, flags, reporter);
    } finally {
      reporter.end();
    }
  });
};

export const migrateCommand = (): Command =>
  addClientOptions(
    new Command('migrate')
      .description('move the disk images of a VM to another daemon while the VM runs')
      .argument('<image...>', 'images of one VM')
      .addOption(
        new Option('--to <host:port>', 'data address of the target daemon')
          .argParser(checkedBy(parsePeer))
          .makeOptionMandatory(),
      )
      .addOption(
        new Option('--cutover <policy>', 'who starts the cutover')
          .choices(CUTOVER_POLICIES)
          .default('on-first-write'),
      )
      .addOption(
        new Option('--net-limit <rate>', 'send no faster than this')
          .argParser(checkedBy(parseRate))
          .default(UNLIMITED, 'unlimited'),
      )
      .addOption(
        new Option('--disk-limit <rate>', 'let the guest write no faster than this')
          .argParser(checkedBy(parseRate))
          .default(UNLIMITED, 'unlimited'),
      )
      .addOption(
        new Option('--deadline <time>', 'be in sync by then: 10m, 2h30m, or an ISO time').argParser(
          checkedBy(parseDeadline),
        ),
      )
      .addOption(
        new Option('--priority <n>', '0 (least) to 9 (most urgent)')
          .argParser(checkedBy(wholeNumber(0, PRIORITY_MAX)))
          .default(0),
      )
      .addOption(
        new Option(
          '--danger <percent>',
          'below this ratio of time to the deadline and time left, congestion is ignored (default: 300%)',
        ).argParser(checkedBy(parsePercentage)),
      )
      .addOption(
        new Option(
          '--warning <percent>',
          'from this ratio down the guest is slowed where the deadline needs it (default: danger + 100%)',
        ).argParser(checkedBy(parsePercentage)),
      )
      .option('--important', 'goes before other migrations when its deadline comes near', false)
      .addOption(
        new Option('--net-floor <rate>', 'the broker leaves it this much network (default: 1MB/s)').argParser(
          checkedBy(parseFloor),
        ),
      )
      .addOption(
        new Option('--disk-floor <rate>', 'the broker leaves the guest this much (default: 1MB/s)').argParser(
          checkedBy(parseFloor),
        ),
      )
      .option('--no-broker', 'nobody looks after its deadline or yields to other traffic')
      .addOption(
        new Option('--until <point>', 'when to return')
          .choices(['in-sync', 'completed'])
          .default('completed'),
      )
      .option('--detach', 'start it, print its id, and return', false)
      .option(
        '--request-id <id>',
        'a name made up by you: given again, it starts nothing and finds the same migration',
      )
      .option('--json', 'a line of JSON for each report', false),
  )
    .addHelpText('after', HELP)
    .action(migrate);
