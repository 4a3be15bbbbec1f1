/** Whether whoever made a request is still there. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import t from 'tap';
import { Callers } from '../../src/fs/kernel/caller.js';
import { guardProcess, releaseProcess } from '../support/scratch.js';
import { waitFor } from '../support/wait-for.js';

t.test('a process that ends takes its requests along; a thread that does not', async (t) => {
  const callers = new Callers();
  const child = spawn('sleep', ['300']);
  guardProcess(child.pid!);
  const before = new Set(readdirSync('/proc/self/task'));
  const worker = new Worker('setInterval(() => {}, 1000)', { eval: true });
  await once(worker, 'online');
  const threads = readdirSync('/proc/self/task')
    .filter((thread) => !before.has(thread))
    .map(Number);
  t.ok(threads.length > 0);
  const all = [0, child.pid!, ...threads];
  for (const thread of all) callers.note(thread);
  const ending = (): number[] => all.filter((thread) => callers.isEnding(thread));
  t.same(ending(), [], 'all are there');
  await worker.terminate();
  await waitFor(
    () => threads.some((thread) => !existsSync(`/proc/self/task/${thread}`)),
    'the thread is gone',
  );
  t.same(ending(), [], 'its process is not');
  child.kill('SIGKILL');
  await once(child, 'exit');
  releaseProcess(child.pid!);
  t.same(ending(), [child.pid]);
  callers.keep(new Set(threads));
  t.same(ending(), [], 'forgotten');
  callers.note(child.pid!);
  t.same(ending(), [], 'one that was gone before its request came counts as alive');
});
