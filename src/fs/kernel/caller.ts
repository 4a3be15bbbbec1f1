import { readFileSync } from 'node:fs';

/** SIGKILL in a mask of pending signals. */
const KILL = 1n << 8n;

/** PF_EXITING in the flags of a thread. */
const EXITING = 0x4;
/** Fields of /proc/TID/stat behind the name: state, parent and so on; the flags are the ninth of the line. */
const FLAGS_FIELD = 6;

/**
 * Whether the thread that made a request has ended, or is ending (proc_pid_stat(5), flags). One that waits for its
 * asynchronous requests while it ends gets no signal that anybody would be told of. One in another PID namespace is
 * not known, and counts as alive.
 */
export const isEnding = (caller: number): boolean => {
  if (caller === 0) return false;
  try {
    const stat = readFileSync(`/proc/${caller}/stat`, 'latin1');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return (Number(fields[FLAGS_FIELD]) & EXITING) !== 0;
  } catch {
    return true;
  }
};

/**
 * Whether the thread that waits for us is being killed: by SIGKILL, or by any signal that ends its process, which the
 * kernel turns into SIGKILL for each thread (proc_pid_status(5), SigPnd). One that we cannot see counts as killed.
 */
export const isBeingKilled = (caller: number): boolean => {
  if (caller === 0) return true;
  try {
    const pending = /^SigPnd:\s*([0-9a-f]+)$/m.exec(readFileSync(`/proc/${caller}/status`, 'latin1'))?.[1];
    return pending === undefined || (BigInt(`0x${pending}`) & KILL) !== 0n;
  } catch {
    return true;
  }
};
