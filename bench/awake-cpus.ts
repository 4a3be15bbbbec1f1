import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpus } from 'node:os';
import { guardProcess, releaseProcess, type Teardown } from '../test/support/scratch.js';

/**
 * Keeps the CPUs from halting, by one loop each that runs when nothing else wants to (sched(7), SCHED_IDLE), and
 * resolves with the ids of these processes. Waking a halted CPU of a virtual machine costs more than a request does
 * and depends on what else runs, so latencies at queue depth 1 otherwise tell more about the host than about us.
 */
export const keepCpusAwake = async (cleanup: Teardown): Promise<readonly number[]> => {
  const loops: ChildProcess[] = cpus().map(() =>
    spawn('chrt', ['--idle', '0', 'sh', '-c', 'while :; do :; done'], { stdio: 'ignore' }),
  );
  return Promise.all(
    loops.map(async (loop) => {
      await once(loop, 'spawn');
      const pid = loop.pid!;
      guardProcess(pid);
      cleanup.teardown(async () => {
        const ended = once(loop, 'exit');
        loop.kill('SIGKILL');
        await ended;
        releaseProcess(pid);
      });
      return pid;
    }),
  );
};
