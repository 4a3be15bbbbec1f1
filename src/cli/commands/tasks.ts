import { Command, CommanderError, Option } from 'commander';
import type { SchedulerClient } from '../../control/scheduler-client.js';
import { systemClock } from '../../leaves/clock.js';
import { MigrateFsError } from '../../leaves/errors.js';
import type { TaskSnapshot, TaskStateName } from '../../leaves/scheduler.js';
import { TASK_STATES } from '../../leaves/scheduler.js';
import { checkedBy, nonEmpty } from '../option-parsers.js';
import { toJson } from '../render.js';
import type { SchedulerClientOptions } from '../scheduler-connection.js';
import { addSchedulerOptions, withScheduler } from '../scheduler-connection.js';
import { followTask, TaskLines } from '../task-follow.js';
import { taskDetails, taskTable } from '../task-render.js';

const PAGE = 1000;

const HELP = `
With an id it shows one task with every decision about it, in words: why it waited, started, was slowed down, failed.

Examples:
  migratefs tasks                       the queue and what has ended
  migratefs tasks --state waiting
  migratefs tasks t17                   why is it where it is?
  migratefs tasks t17 --watch`;

interface TasksFlags extends SchedulerClientOptions {
  readonly watch: boolean;
  readonly state?: readonly TaskStateName[];
  readonly json: boolean;
}

const allTasks = async (
  client: SchedulerClient,
  states: readonly TaskStateName[],
): Promise<readonly TaskSnapshot[]> => {
  const tasks: TaskSnapshot[] = [];
  let after: string | undefined;
  do {
    const page = await client.list({ states, limit: PAGE, ...(after !== undefined && { after }) });
    tasks.push(...page.tasks);
    after = page.next;
  } while (after !== undefined);
  return tasks;
};

const watchAll = async (client: SchedulerClient, flags: TasksFlags): Promise<void> => {
  const lines = new TaskLines(flags.json);
  for await (const task of client.watch(''))
    if (!flags.state || flags.state.includes(task.state)) lines.show(task);
  throw new MigrateFsError('UNAVAILABLE', `the scheduler at ${client.server} stopped reporting`);
};

const tasks = async (id: string | undefined, flags: TasksFlags, command: Command): Promise<void> => {
  if (id !== undefined && flags.state) {
    console.error('migratefs: give an id or --state (see `migratefs tasks --help`)');
    throw new CommanderError(2, 'migratefs.usage', `${command.name()}: id and --state`);
  }
  await withScheduler(flags, async (client) => {
    if (id !== undefined && flags.watch) {
      await followTask(client, id, flags.json);
      return;
    }
    if (id !== undefined) {
      const [task, decisions] = await Promise.all([client.get(id), client.decisions(id)]);
      console.log(
        flags.json ? toJson({ task, decisions }) : taskDetails(task, decisions, systemClock.wall()),
      );
      return;
    }
    if (flags.watch) {
      await watchAll(client, flags);
      return;
    }
    const all = await allTasks(client, flags.state ?? []);
    console.log(
      flags.json
        ? toJson({ scheduler: await client.status(), tasks: all })
        : taskTable(all, systemClock.wall()),
    );
  });
};

export const tasksCommand = (): Command =>
  addSchedulerOptions(
    new Command('tasks')
      .description('show the tasks of the scheduler, or one with every decision about it')
      .argument('[id]', 'id of a task', checkedBy(nonEmpty))
      .option('--watch', 'go on showing what changes', false)
      .addOption(new Option('--state <state...>', 'only these').choices(TASK_STATES))
      .option('--json', 'one object, or with --watch one a line', false),
  )
    .addHelpText('after', HELP)
    .action(tasks);
