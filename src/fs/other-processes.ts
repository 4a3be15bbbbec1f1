import { readdirSync, readFileSync } from 'node:fs';

/** All processes but this one that /proc shows, as the names of their folders there. */
export const otherProcesses = (): readonly string[] =>
  readdirSync('/proc').filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid);

/** The name of its program (proc_pid_comm(5)). Throws when it has ended. */
export const commandOf = (pid: string): string => readFileSync(`/proc/${pid}/comm`, 'utf8').trim();
