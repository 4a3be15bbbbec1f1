import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import t from 'tap';
import { SharedLock } from '../../src/fs/shared-lock.js';
import type { LockLoad } from '../support/lane-load-thread.js';

const THREADS = 4;
const ROUNDS = 20_000;

t.test('one thread at a time is between acquire and release', async (t) => {
  const words = new SharedArrayBuffer(16);
  const workerData: LockLoad = { kind: 'lock', words, rounds: ROUNDS };
  const threads = Array.from(
    { length: THREADS },
    () => new Worker(new URL('../support/lane-load-thread.js', import.meta.url), { workerData }),
  );
  await Promise.all(threads.map((thread) => once(thread, 'exit')));
  const [lock, count] = new Int32Array(words);
  t.equal(count, THREADS * ROUNDS);
  t.equal(lock, 0, 'it is free at the end');
});

t.test('who waits is not in before it is released, and then it is', async (t) => {
  const words = new SharedArrayBuffer(16);
  const all = new Int32Array(words);
  const lock = new SharedLock(all, 0);
  lock.acquire();
  const workerData: LockLoad = { kind: 'lock', words, rounds: 1 };
  const thread = new Worker(new URL('../support/lane-load-thread.js', import.meta.url), { workerData });
  // Somebody waits once the word says so.
  while (Atomics.load(all, 0) === 1) await new Promise((resolve) => setImmediate(resolve));
  t.equal(all[1], 0, 'it is not in before');
  lock.release();
  await once(thread, 'exit');
  t.equal(all[1], 1);
});
