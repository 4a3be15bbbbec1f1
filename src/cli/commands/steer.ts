/** Commands that change a running migration and print what it is now. */
import { Command, CommanderError, Option } from 'commander';
import type { ControlClient } from '../../control/control-client.js';
import { formatDuration } from '../../leaves/duration.js';
import type { MigrationSnapshot } from '../../leaves/migration.js';
import { formatRate, parseRate } from '../../leaves/quantity.js';
import type { BytesPerSecond } from '../../leaves/units.js';
import type { ClientOptions } from '../option-parsers.js';
import { addClientOptions, checkedBy, withClient } from '../option-parsers.js';
import { stateWords, toJson } from '../render.js';

interface SteerFlags extends ClientOptions {
  readonly json: boolean;
}

interface CancelFlags extends SteerFlags {
  readonly takeBack: boolean;
}

interface LimitFlags extends SteerFlags {
  readonly net?: BytesPerSecond;
  readonly disk?: BytesPerSecond;
}

const steerCommand = (name: string, description: string): Command =>
  addClientOptions(
    new Command(name)
      .description(description)
      .argument('<id>', 'id of a migration (see `migratefs status`)')
      .option('--json', 'the migration as one line of JSON', false),
  );

type Steer = (client: ControlClient, id: string) => Promise<MigrationSnapshot>;

const stateLine = ({ id, state }: MigrationSnapshot): string => `${id}: ${stateWords(state)}`;

const steering =
  (steer: Steer, line: (snapshot: MigrationSnapshot) => string = stateLine) =>
  async (id: string, flags: SteerFlags): Promise<void> => {
    const snapshot = await withClient(flags, (client) => steer(client, id));
    console.log(flags.json ? toJson(snapshot) : line(snapshot));
  };

export const pauseCommand = (): Command =>
  steerCommand('pause', 'stop sending; the guest goes on and its writes are tracked')
    .addHelpText('after', '\nExample:\n  migratefs pause 7e9d59369d58')
    .action(steering((client, id) => client.pause(id)));

export const resumeCommand = (): Command =>
  steerCommand('resume', 'go on with a paused migration')
    .addHelpText('after', '\nExample:\n  migratefs resume 7e9d59369d58')
    .action(steering((client, id) => client.resume(id)));

export const cancelCommand = (): Command =>
  steerCommand('cancel', 'give a migration up; nothing is left on the target, the source is unaffected')
    .option(
      '--take-back',
      'also when the images were offered to a target that does not answer any more; ONLY where it is certain that it does not ' +
        'have them and never will: otherwise both hosts own them, and one loses what its guest writes',
      false,
    )
    .addHelpText('after', '\nExample:\n  migratefs cancel 7e9d59369d58')
    .action((id: string, flags: CancelFlags) =>
      steering((client) => client.cancel(id, flags.takeBack))(id, flags),
    );

export const cutoverCommand = (): Command =>
  steerCommand('cutover', 'hand the images over to the target, once in sync')
    .addHelpText(
      'after',
      '\nReturns when the target owns the images; from then on the source refuses writes.\n' +
        '\nExample:\n  migratefs migrate vm1.raw --to host-b:7071 --cutover explicit --until in-sync\n' +
        '  migratefs cutover 7e9d59369d58',
    )
    .action(
      steering(
        (client, id) => client.cutover(id),
        (snapshot) =>
          snapshot.cutoverStall === undefined
            ? stateLine(snapshot)
            : `${stateLine(snapshot)}, stall ${formatDuration(snapshot.cutoverStall)}`,
      ),
    );

const limit = async (id: string, flags: LimitFlags, command: Command): Promise<void> => {
  const { net, disk } = flags;
  if (net === undefined && disk === undefined) {
    console.error('migratefs: give --net RATE, --disk RATE or both (see `migratefs limit --help`)');
    throw new CommanderError(2, 'migratefs.usage', `${command.name()}: no limit given`);
  }
  const set: Steer = async (client) => {
    const first = net === undefined ? undefined : await client.setNetworkLimit(id, net);
    return disk === undefined ? first! : client.setDiskLimit(id, disk);
  };
  await steering(
    set,
    (snapshot) =>
      `${snapshot.id}: network ${formatRate(snapshot.netLimit)}, disk ${formatRate(snapshot.diskLimit)}`,
  )(id, flags);
};

export const limitCommand = (): Command =>
  steerCommand('limit', 'set how fast a migration may send, and how fast its guest may write')
    .addOption(new Option('--net <rate>', 'limit of the network').argParser(checkedBy(parseRate)))
    .addOption(
      new Option('--disk <rate>', 'limit of the writes of the guest').argParser(checkedBy(parseRate)),
    )
    .addHelpText(
      'after',
      '\nA rate is a number with KB/s, MB/s, GB/s (10^3) or KiB/s, MiB/s, GiB/s (2^10); unlimited or 0 removes a ' +
        'limit.\nLimits take effect at once, in whole KB/s.\n' +
        '\nExamples:\n  migratefs limit 7e9d59369d58 --net 50MB/s\n' +
        '  migratefs limit 7e9d59369d58 --net unlimited --disk 10MiB/s',
    )
    .action(limit);
