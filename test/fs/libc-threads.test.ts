import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import t from 'tap';
import { MiB } from '../../src/leaves/units.js';

const THREADS = 20;

/** Bytes of private memory that the process has mapped (proc_pid_status(5)). */
const dataBytes = (): number => {
  const [, kilobytes] = /^VmData:\s+(\d+)/m.exec(readFileSync('/proc/self/status', 'utf8'))!;
  return Number(kilobytes) * 1024;
};

t.test('threads that end leave little of their address space', async (t) => {
  const run = async (): Promise<void> => {
    const thread = new Worker(new URL('../support/libc-thread.js', import.meta.url));
    const [code] = (await once(thread, 'exit')) as [number];
    t.equal(code, 0);
  };
  // The allocators' own.
  for (let i = 0; i < THREADS; i++) await run();
  const before = dataBytes();
  for (let i = 0; i < THREADS; i++) await run();
  const each = (dataBytes() - before) / THREADS;
  t.ok(each < MiB, `${(each / MiB).toFixed(2)} MiB each`);
});
