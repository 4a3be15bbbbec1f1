import { Command } from 'commander';
import { toJson } from '../render.js';
import type { SchedulerClientOptions } from '../scheduler-connection.js';
import { addSchedulerOptions, withScheduler } from '../scheduler-connection.js';

const HELP = `
Returns at once: what was begun is undone afterwards (\`migratefs tasks ID --watch\`). A driver that is running is ended and
its rollback command run, the migration is cancelled, and the VM stays on the source. Refused once the VM has moved.

Example:
  migratefs task-cancel t17`;

interface CancelFlags extends SchedulerClientOptions {
  readonly json: boolean;
}

const taskCancel = async (id: string, flags: CancelFlags): Promise<void> => {
  const task = await withScheduler(flags, (client) => client.cancel(id));
  console.log(flags.json ? toJson(task) : `${task.id}: ${task.state}, ${task.reason}`);
};

export const taskCancelCommand = (): Command =>
  addSchedulerOptions(
    new Command('task-cancel')
      .description('give a task of the scheduler up')
      .argument('<id>', 'id of a task (see `migratefs tasks`)')
      .option('--json', 'the task as one line of JSON', false),
  )
    .addHelpText('after', HELP)
    .action(taskCancel);
