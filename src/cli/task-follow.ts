import type { SchedulerClient } from '../control/scheduler-client.js';
import { systemClock } from '../leaves/clock.js';
import { MigrateFsError } from '../leaves/errors.js';
import type { TaskSnapshot } from '../leaves/scheduler.js';
import { isTaskFinal } from '../leaves/scheduler.js';
import { millis } from '../leaves/units.js';
import { toJson } from './render.js';
import { taskLine } from './task-render.js';

/** Between two lines on the same decision. */
const LINE_INTERVAL = millis(5_000);

/** Prints tasks as they change: each new decision, and progress now and then. */
export class TaskLines {
  readonly #json: boolean;
  readonly #last = new Map<string, { readonly key: string; readonly at: number }>();

  constructor(json: boolean) {
    this.#json = json;
  }

  show(task: TaskSnapshot): void {
    if (this.#json) {
      console.log(toJson(task));
      return;
    }
    const now = systemClock.now();
    const key = `${task.state} ${task.reason}`;
    const last = this.#last.get(task.id);
    if (last?.key === key && now - last.at < LINE_INTERVAL) return;
    this.#last.set(task.id, { key, at: now });
    const wall = systemClock.wall();
    console.log(`${new Date(wall).toISOString()} ${taskLine(task, wall)}`);
    if (isTaskFinal(task.state)) this.#last.delete(task.id);
  }
}

/** Shows a task until it ends; returns its last state. */
export const followTask = async (
  client: SchedulerClient,
  id: string,
  json: boolean,
): Promise<TaskSnapshot> => {
  const lines = new TaskLines(json);
  let last: TaskSnapshot | undefined;
  try {
    for await (const task of client.watch(id)) {
      last = task;
      lines.show(task);
    }
  } catch (error) {
    if (!last || !(error instanceof MigrateFsError) || error.code !== 'UNAVAILABLE') throw error;
  }
  if (!last || !isTaskFinal(last.state))
    throw new MigrateFsError(
      'UNAVAILABLE',
      `lost the scheduler at ${client.server}: the task goes on when it is back, see \`migratefs tasks ${id}\``,
    );
  return last;
};
