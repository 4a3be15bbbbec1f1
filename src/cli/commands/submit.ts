import { Command, Option } from 'commander';
import type { Deadline } from '../../leaves/duration.js';
import { parseDeadline } from '../../leaves/duration.js';
import { MigrateFsError } from '../../leaves/errors.js';
import { parseRate } from '../../leaves/quantity.js';
import type { TaskSnapshot } from '../../leaves/scheduler.js';
import type { BytesPerSecond } from '../../leaves/units.js';
import { UNLIMITED } from '../../leaves/units.js';
import { checkedBy, wholeNumber } from '../option-parsers.js';
import { toJson } from '../render.js';
import type { SchedulerClientOptions } from '../scheduler-connection.js';
import { addSchedulerOptions, withScheduler } from '../scheduler-connection.js';
import { followTask } from '../task-follow.js';

const PRIORITY_MAX = 9;

const HELP = `
Prints the id of the task. It is refused, with the numbers, when its deadline cannot be met; --insist takes it all the
same, and it is flagged. Hosts are named as in the scheduler's topology, images relative to the exported directory.

Examples:
  migratefs submit vm7 vm7/disk.qcow2 vm7/data.raw --from host-a --to host-b --deadline 30m
  migratefs submit vm8 vm8.raw --from host-a --to host-b --not-before 2030-01-31T22:00:00Z --deadline 2030-02-01T04:00:00Z
  migratefs submit vm9 vm9.raw --from host-a --to host-c --deadline 10m --priority 7 --wait`;

interface SubmitFlags extends SchedulerClientOptions {
  readonly from: string;
  readonly to: string;
  readonly notBefore?: Deadline;
  readonly deadline?: Deadline;
  readonly priority: number;
  readonly important: boolean;
  readonly danger?: number;
  readonly warning?: number;
  readonly writeRate?: BytesPerSecond;
  readonly driver?: string;
  readonly insist: boolean;
  readonly requestId?: string;
  readonly wait: boolean;
  readonly json: boolean;
}

const parseRatio = (text: string): number => {
  const value = /^\d{1,4}(\.\d{1,3})?$/.test(text) ? Number(text) : Number.NaN;
  if (!(value > 1)) throw new MigrateFsError('INVALID_ARGUMENT', 'give a ratio above 1, such as 3 or 2.5');
  return value;
};

const parseWriteRate = (text: string): BytesPerSecond => {
  const rate = parseRate(text);
  if (rate === UNLIMITED)
    throw new MigrateFsError('INVALID_ARGUMENT', 'give a rate, such as 30MB/s; without it none is expected');
  return rate;
};

/** Throws unless the task is done; the message says why it is not. */
const assertDone = ({ id, state, error, reason }: TaskSnapshot): void => {
  if (state === 'done') return;
  throw new MigrateFsError(
    error?.code ?? (state === 'cancelled' ? 'CANCELLED' : 'ABORTED'),
    state === 'cancelled'
      ? `task ${id} was cancelled`
      : `task ${id} is ${state}: ${error?.message ?? reason}`,
  );
};

const submit = async (vm: string, images: readonly string[], flags: SubmitFlags): Promise<void> => {
  await withScheduler(flags, async (client) => {
    const { notBefore, deadline, danger, warning, driver, requestId, priority, important, insist } = flags;
    const task = await client.submit({
      vm,
      images,
      source: flags.from,
      target: flags.to,
      ...(notBefore?.kind === 'at' && { notBefore: notBefore.instant }),
      ...(notBefore?.kind === 'after' && { notBeforeAfter: notBefore.duration }),
      ...(deadline?.kind === 'at' && { deadline: deadline.instant }),
      ...(deadline?.kind === 'after' && { deadlineAfter: deadline.duration }),
      priority,
      important,
      ...(danger !== undefined && { danger }),
      ...(warning !== undefined && { warning }),
      writeRate: flags.writeRate ?? 0,
      ...(driver !== undefined && { driver }),
      insist,
      ...(requestId !== undefined && { requestId }),
    });
    console.log(flags.json ? toJson(task) : task.id);
    if (flags.wait) assertDone(await followTask(client, task.id, flags.json));
  });
};

export const submitCommand = (): Command =>
  addSchedulerOptions(
    new Command('submit')
      .description('give the scheduler a VM to move')
      .argument('<vm>', 'name of the VM, for drivers and people')
      .argument('<image...>', 'its disk images')
      .addOption(new Option('--from <host>', 'where it is').makeOptionMandatory())
      .addOption(new Option('--to <host>', 'where it has to go').makeOptionMandatory())
      .addOption(
        new Option('--deadline <time>', 'be done by then: 30m, 2h30m, or an ISO time').argParser(
          checkedBy(parseDeadline),
        ),
      )
      .addOption(
        new Option('--not-before <time>', 'do not begin before: 30m, or an ISO time').argParser(
          checkedBy(parseDeadline),
        ),
      )
      .addOption(
        new Option('--priority <n>', '0 (least) to 9 (most urgent)')
          .argParser(checkedBy(wholeNumber(0, PRIORITY_MAX)))
          .default(0),
      )
      .option('--important', 'never back off for others', false)
      .addOption(
        new Option('--danger <ratio>', 'in danger below this laxity ratio (default: 3)').argParser(
          checkedBy(parseRatio),
        ),
      )
      .addOption(
        new Option(
          '--warning <ratio>',
          'limit the guest at or below this ratio (default: danger + 1)',
        ).argParser(checkedBy(parseRatio)),
      )
      .addOption(
        new Option('--write-rate <rate>', 'what the guest is expected to write (default: nothing)').argParser(
          checkedBy(parseWriteRate),
        ),
      )
      .option(
        '--driver <name>',
        "how the VM is moved; 'none': disks only (default: the scheduler's default-driver)",
      )
      .option('--insist', 'take it even if the deadline cannot be met', false)
      .option('--request-id <id>', 'the same id makes the same task')
      .option(
        '--wait',
        'follow it to its end; exit code 1 unless it is done; Ctrl-C leaves the task in the queue',
        false,
      )
      .option('--json', 'the task as a line of JSON, with --wait each change', false),
  )
    .addHelpText('after', HELP)
    .action(submit);
