import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { open } from 'lmdb';
import t from 'tap';
import { TaskBook } from '../../src/broker/scheduler/task-book.js';
import { TaskStore } from '../../src/broker/scheduler/task-store.js';
import { millis } from '../../src/leaves/units.js';
import { ManualClock } from '../support/manual-clock.js';
import { unwatched } from '../support/run.js';
import { guardProcess, releaseProcess, scratchDir } from '../support/scratch.js';
import { fillDisk, smallDisk } from '../support/small-disk.js';
import { taskExample } from '../support/task-example.js';

const WRITER = fileURLToPath(new URL('../support/store-process.js', import.meta.url));
const at = taskExample.submittedAt;

/** Starts a process that writes, and kills it when it has said so many lines; resolves with the last one. */
const writeAndDie = async (folder: string, lines: number): Promise<number> => {
  const child = spawn(...unwatched(process.execPath, [WRITER, folder]), {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  guardProcess(child.pid!);
  const gone = once(child, 'close');
  let last = 0;
  let seen = 0;
  for await (const line of createInterface({ input: child.stdout })) {
    last = Number(line);
    if (++seen === lines) child.kill('SIGKILL');
  }
  await gone;
  releaseProcess(child.pid!);
  return last;
};

t.test('what a killed process said to be on disk is there, whole, and the next one goes on', async (t) => {
  const folder = scratchDir(t, 'queue');
  const id: string[] = [];
  for (const lines of [1, 7, 40]) {
    const last = await writeAndDie(folder, lines);
    const store = await TaskStore.open(folder);
    id.push(store.id);
    const tasks = store.tasks();
    t.ok(tasks.length >= last, `${tasks.length} of at least ${last}`);
    t.ok(tasks.length <= last + 1, 'and at most the one under way');
    const torn = tasks.filter(({ number, reason }) => {
      const decisions = store.decisions(number);
      return reason !== `reason ${number}` || decisions.length !== 1 || decisions[0]!.text !== reason;
    });
    t.same(torn, [], 'each with its decision');
    t.equal(store.nextNumber(), tasks.length + 1);
    await store.close();
  }
  t.equal(new Set(id).size, 1, 'the queue keeps its id');
});

t.test('another process has the queue: refused with its pid; not when it is dead', async (t) => {
  const folder = scratchDir(t, 'queue');
  const child = spawn(...unwatched(process.execPath, [WRITER, folder]), {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  guardProcess(child.pid!);
  await once(child.stdout, 'data');
  await t.rejects(TaskStore.open(folder), {
    code: 'FAILED_PRECONDITION',
    message: new RegExp(`another scheduler \\(pid ${child.pid}\\) has the queue`),
  });
  child.stdout.resume();
  child.kill('SIGKILL');
  await once(child, 'close');
  releaseProcess(child.pid!);
  const store = await TaskStore.open(folder);
  t.ok(store.tasks().length > 0);
  await store.close();
});

t.test('a queue of another version is refused, and left as it is', async (t) => {
  const folder = scratchDir(t, 'queue');
  const store = await TaskStore.open(folder);
  store.save(taskExample);
  await store.close();
  const raw = open({ path: folder, encoding: 'json', noSubdir: false });
  raw.putSync(['meta', 'schema'], 99);
  await raw.close();
  await t.rejects(TaskStore.open(folder), { code: 'FAILED_PRECONDITION', message: /version 99.* knows 1/ });
  const again = open({ path: folder, encoding: 'json', noSubdir: false });
  t.match(again.get(['task', 1]), { id: 't1' });
  await again.close();
});

t.test('of many decisions the newest are kept, and that older ones are missing is said', async (t) => {
  const store = await TaskStore.open(scratchDir(t, 'queue'));
  t.teardown(() => store.close());
  store.save(taskExample);
  for (let n = 1; n <= 720; n++) store.note(1, { at, text: `decision ${n}` });
  const decisions = store.decisions(1);
  t.ok(decisions.length <= 501 && decisions.length >= 400, `${decisions.length} kept`);
  t.equal(decisions[0]!.text, 'older decisions are not kept');
  t.equal(decisions.at(-1)!.text, 'decision 720');
  const numbers = decisions.slice(1).map(({ text }) => Number(text.split(' ')[1]));
  t.ok(
    numbers.every((number, index) => index === 0 || number === numbers[index - 1]! + 1),
    'without gaps',
  );
});

t.test('a disk that was full harms no task once there is room', async (t) => {
  const folder = join(scratchDir(t, 'queue'), 'disk');
  await smallDisk(t, folder, 4 << 20);
  const store = await TaskStore.open(join(folder, 'queue'));
  t.teardown(() => store.close());
  store.save(taskExample, { at, text: 'the first' });
  await fillDisk(folder, 0);
  let written = 0;
  t.throws(
    () => {
      for (; written < 100; written++)
        store.note(taskExample.number, { at, text: `${written} ${'x'.repeat(8192)}` });
    },
    { code: 'RESOURCE_EXHAUSTED', message: /No space left/ },
  );
  rmSync(join(folder, 'ballast'));
  store.note(taskExample.number, { at, text: 'the last' });
  t.same(
    store.decisions(taskExample.number).map(({ text }) => text.split(' x')[0]),
    ['the first', ...Array.from({ length: written }, (_, i) => `${i}`), 'the last'],
  );
});

t.test('the history is bounded, and drivers are told what is forgotten', async (t) => {
  const store = await TaskStore.open(scratchDir(t, 'queue'));
  t.teardown(() => store.close());
  const clock = new ManualClock(at);
  const book = new TaskBook({ store, clock, log: () => {}, vmmTime: millis(0), historyMax: 40 });
  const forgotten: string[] = [];
  book.onForgotten((id) => forgotten.push(id));
  const { id: _id, number: _number, state: _state, ...order } = taskExample;
  const waiting = book.add({ ...order, requestId: 'first' }, 'admitted');
  for (let n = 0; n < 41; n++) {
    const { id } = book.add({ ...order, requestId: `r${n}` }, 'admitted');
    book.transition(id, { kind: 'cancelled' }, 'cancelled');
  }
  t.equal(forgotten.length, 2);
  t.notOk(forgotten.includes(waiting.id), 'only what has ended');
  t.equal(book.findRequest('r0'), undefined);
  t.throws(() => book.get(forgotten[0]!), { code: 'NOT_FOUND' });
  t.equal(store.tasks().length, 42 - 2);
  t.same(store.decisions(2), [], 'nor its decisions');
  t.throws(() => book.transition(waiting.id, { kind: 'done' }, 'no'), /cannot go from waiting to done/);
});
