import { readFileSync } from 'node:fs';

/** SIGKILL in a mask of pending signals. */
const KILL = 1n << 8n;

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
