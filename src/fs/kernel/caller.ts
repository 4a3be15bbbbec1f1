import { readdirSync, readFileSync } from 'node:fs';

/** SIGKILL in a mask of pending signals. */
const KILL = 1n << 8n;

/** PF_EXITING in the flags of a thread. */
const EXITING = 0x4;
/** Fields of /proc/TID/stat behind the name: state, parent and so on; the flags are the ninth of the line. */
const FLAGS_FIELD = 6;

/** Whether a thread is ending (proc_pid_stat(5), flags); undefined: it is gone, or in another PID namespace. */
const isThreadEnding = (thread: number | string): boolean | undefined => {
  try {
    const stat = readFileSync(`/proc/${thread}/stat`, 'latin1');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return (Number(fields[FLAGS_FIELD]) & EXITING) !== 0;
  } catch {
    return undefined;
  }
};

const isProcessEnding = (process: number): boolean => {
  try {
    return readdirSync(`/proc/${process}/task`).every((thread) => isThreadEnding(thread) ?? true);
  } catch {
    return true;
  }
};

/**
 * Who waits for requests that are under way. A process that waits for asynchronous ones while it ends gets no signal that
 * anybody would be told of; and a thread that has submitted some may end long before its process.
 */
export class Callers {
  /** By thread. Undefined: it was gone already, or is in another PID namespace. */
  readonly #processes = new Map<number, number | undefined>();

  /** When a request of the thread comes. */
  note(thread: number): void {
    if (!this.#processes.has(thread)) this.#processes.set(thread, processOf(thread));
  }

  /** Forgets all but these. */
  keep(threads: ReadonlySet<number>): void {
    for (const thread of this.#processes.keys()) if (!threads.has(thread)) this.#processes.delete(thread);
  }

  /** Whether the process of the thread has ended, or is ending. One that is not known counts as alive. */
  isEnding(thread: number): boolean {
    const process = this.#processes.get(thread);
    return process !== undefined && isThreadEnding(thread) !== false && isProcessEnding(process);
  }
}

/** proc_pid_status(5), Tgid. */
const processOf = (thread: number): number | undefined => {
  if (thread === 0) return undefined;
  try {
    const id = /^Tgid:\s*(\d+)$/m.exec(readFileSync(`/proc/${thread}/status`, 'latin1'))?.[1];
    return id === undefined ? undefined : Number(id);
  } catch {
    return undefined;
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
