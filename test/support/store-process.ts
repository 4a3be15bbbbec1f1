/**
 * `node store-process.js FOLDER`: writes tasks into the queue of FOLDER as fast as it can, and prints the number of each
 * when it is said to be on disk. It is meant to be killed.
 */
import type { Task } from '../../src/broker/scheduler/task.js';
import { TaskStore } from '../../src/broker/scheduler/task-store.js';
import { taskExample } from './task-example.js';

const store = await TaskStore.open(process.argv[2]!);
for (;;) {
  const number = store.nextNumber();
  const task: Task = { ...taskExample, id: `t${number}`, number, reason: `reason ${number}` };
  store.save(task, { at: taskExample.submittedAt, text: task.reason, state: 'waiting' });
  process.stdout.write(`${number}\n`);
  // Output goes out between turns.
  await new Promise((resolve) => setImmediate(resolve));
}
