import { readFileSync } from 'node:fs';

/** Which process a pid means: pids are used again, also after the host has been restarted. */
export interface ProcessIdentity {
  readonly pid: number;
  /** Clock ticks since boot (proc_pid_stat(5), field 22). */
  readonly startTime: string;
  readonly bootId: string;
}

const BOOT_ID = '/proc/sys/kernel/random/boot_id';
/** Field 22, counted after the name in parentheses, which may hold anything. */
const START_TIME_INDEX = 19;
const STATE_INDEX = 0;

const bootId = (): string => readFileSync(BOOT_ID, 'utf8').trim();

const statFields = (pid: number): string[] | undefined => {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return text.slice(text.lastIndexOf(')') + 2).split(' ');
  } catch {
    return undefined;
  }
};

export const ownIdentity = (): ProcessIdentity => ({
  pid: process.pid,
  startTime: statFields(process.pid)?.[START_TIME_INDEX] ?? '',
  bootId: bootId(),
});

/** Whether that very process is running; one that has ended and is not waited for counts as gone. */
export const isRunning = ({ pid, startTime, bootId: boot }: ProcessIdentity): boolean => {
  const fields = boot === bootId() ? statFields(pid) : undefined;
  return fields?.[START_TIME_INDEX] === startTime && fields[STATE_INDEX] !== 'Z';
};
