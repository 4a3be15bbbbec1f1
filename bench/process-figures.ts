import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';

const CLOCK_TICKS_PER_SECOND = Number(execFileSync('getconf', ['CLK_TCK'], { encoding: 'utf8' }));

/** Sum of fields of proc(5)'s stat of a process, numbered as there, in seconds. */
const statSeconds = (pid: number, fields: readonly number[]): number => {
  const text = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const fromThird = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return fields.reduce((sum, field) => sum + Number(fromThird[field - 3]), 0) / CLOCK_TICKS_PER_SECOND;
};

/** CPU seconds, user and system, that a process has used, all threads. */
export const cpuSeconds = (pid: number): number => statSeconds(pid, [14, 15]);

/** The same, with that of its children that have ended and were waited for. */
export const cpuSecondsWithChildren = (pid: number): number => statSeconds(pid, [14, 15, 16, 17]);

/** CPU seconds that all processors were not idle since the machine was started (proc(5): first line of /proc/stat). */
export const machineBusySeconds = (): number => {
  const [, user, nice, system, , , irq, softirq, steal] = readFileSync('/proc/stat', 'utf8')
    .split('\n', 1)[0]!
    .split(/\s+/)
    .map(Number);
  return (user! + nice! + system! + irq! + softirq! + steal!) / CLOCK_TICKS_PER_SECOND;
};

/** Bytes of memory a process has resident, files and shared memory included (proc(5): VmRSS). */
export const residentBytes = (pid: number): number => {
  const match = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
  return Number(match?.[1] ?? Number.NaN) * 1024;
};
