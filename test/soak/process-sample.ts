import { lstatSync, readdirSync, readFileSync } from 'node:fs';

/** What one process holds at a moment. Memory in bytes, by the names of proc(5) /proc/PID/status. */
export interface ProcessSample {
  /** VmRSS: everything resident, files and shared memory included. */
  readonly resident: number;
  /** RssAnon: resident and backed by no file. */
  readonly anonymous: number;
  /** VmData: private writable address space, resident or not. */
  readonly data: number;
  readonly threads: number;
  /** Descriptors of inodes that the kernel knows: O_PATH. */
  readonly nodes: number;
  /** All other descriptors. */
  readonly opened: number;
}

const PERMISSIONS = 0o777;

/** The permissions of the link show how a descriptor was opened; an O_PATH one can neither read nor write. */
const isPath = (link: string): boolean | null => {
  try {
    return (lstatSync(link).mode & PERMISSIONS) === 0;
  } catch {
    return null; // closed meanwhile
  }
};

export const sampleProcess = (pid: number): ProcessSample => {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const field = (name: string): number => {
    const match = new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(status);
    if (!match) throw new Error(`/proc/${pid}/status has no ${name}`);
    return Number(match[1]);
  };
  const folder = `/proc/${pid}/fd`;
  const kinds = readdirSync(folder).map((fd) => isPath(`${folder}/${fd}`));
  return {
    resident: field('VmRSS') * 1024,
    anonymous: field('RssAnon') * 1024,
    data: field('VmData') * 1024,
    threads: field('Threads'),
    nodes: kinds.filter((path) => path === true).length,
    opened: kinds.filter((path) => path === false).length,
  };
};
