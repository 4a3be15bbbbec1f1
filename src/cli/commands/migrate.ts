import { Command, Option } from 'commander';
import type { ControlClient } from '../../control/control-client.js';
import { systemClock } from '../../leaves/clock.js';
import type { Deadline } from '../../leaves/duration.js';
import { parseDeadline } from '../../leaves/duration.js';
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
import { addClientOptions, checkedBy, parsePeer, wholeNumber, withClient } from '../option-parsers.js';
import { toJson } from '../render.js';
import type { Reporter } from '../reporter.js';
import { reporterFor } from '../reporter.js';

const PRIORITY_MAX = 9;

const HELP = `
All images of one command are the disks of one VM: they become in sync together and are handed over together. An image
is named relative to the exported directory, or by its path below the mount point of the daemon.

Shows a progress bar on a terminal, and lines when piped. Ctrl-C cancels the migration and waits until it is cancelled;
a second Ctrl-C leaves at once.

Cutover: with on-first-write the target takes over when the VM that was resumed there writes for the first time; with
when-in-sync as soon as both sides are equal; with explicit only by \`migratefs cutover\`, which works always.

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
  readonly until: 'in-sync' | 'completed';
  readonly detach: boolean;
  readonly json: boolean;
}

const start = async (
  client: ControlClient,
  images: readonly string[],
  flags: MigrateFlags,
): Promise<MigrationSnapshot> => {
  const daemon = await client.status();
  const { deadline } = flags;
  return client.start({
    images: images.map((image) => imageNameOf(image, daemon, process.cwd())),
    target: formatHostPort(flags.to),
    cutover: flags.cutover,
    netLimit: flags.netLimit,
    diskLimit: flags.diskLimit,
    priority: flags.priority,
    ...(deadline?.kind === 'at' && { deadline: deadline.instant }),
    ...(deadline?.kind === 'after' && { deadlineAfter: deadline.duration }),
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
        new Option('--until <point>', 'when to return')
          .choices(['in-sync', 'completed'])
          .default('completed'),
      )
      .option('--detach', 'start it, print its id, and return', false)
      .option('--json', 'a line of JSON for each report', false),
  )
    .addHelpText('after', HELP)
    .action(migrate);
