import { loadavg } from 'node:os';
import { cpuSeconds, cpuSecondsWithChildren, machineBusySeconds } from './process-figures.js';

/** null: the process has ended. */
const cpuSecondsOrNull = (pid: number): number | null => {
  try {
    return cpuSeconds(pid);
  } catch {
    return null;
  }
};

/**
 * CPUs that were busy with neither this program, nor what it ran and awaited, nor the processes `pids`: the noise in a
 * figure. Time stolen by other virtual machines counts.
 */
export const watchOthers = (pids: readonly number[]): (() => number) => {
  const begun = performance.now();
  const last = new Map<number, number>();
  const known = (): number => {
    for (const pid of pids) last.set(pid, cpuSecondsOrNull(pid) ?? last.get(pid) ?? 0);
    return [...last.values()].reduce((sum, seconds) => sum + seconds, cpuSecondsWithChildren(process.pid));
  };
  const before = machineBusySeconds() - known();
  return () => {
    const others = machineBusySeconds() - known() - before;
    // The kernel counts in ticks, and not all at the same moment.
    return Math.max(0, others / ((performance.now() - begun) / 1000));
  };
};

/** One-minute load average now. */
export const loadAverage = (): number => loadavg()[0]!;
