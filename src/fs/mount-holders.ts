/** Who has something open on a mount, from /proc (proc_pid_fdinfo(5), proc_pid_maps(5), proc_pid_mountinfo(5)). */
import { readdir, readFile, readlink } from 'node:fs/promises';
import { resultWithin, systemClock } from '../leaves/clock.js';
import { millis } from '../leaves/units.js';
import type { Holder } from '../leaves/unmount.js';
import type { Mount } from './mount-table.js';
import { mountOf, mountsAt } from './mount-table.js';
import { commandOf, otherProcesses } from './other-processes.js';

/** A process that faults in a page of a stuck image may keep its maps locked: look without them then. */
const MAPS_MAX = millis(500);

const hex = (number: string): string => Number(number).toString(16).padStart(2, '0');

const findMount = (mountpoint: string): Mount | undefined =>
  mountsAt(mountpoint).findLast(({ type }) => type === 'fuse.migratefs');

const ofDescriptors = async (pid: string, { id }: Mount): Promise<string | undefined> => {
  for (const fd of await readdir(`/proc/${pid}/fd`)) {
    const info = await readFile(`/proc/${pid}/fdinfo/${fd}`, 'utf8').catch(() => '');
    if (new RegExp(`^mnt_id:\\s*${id}$`, 'm').test(info)) return readlink(`/proc/${pid}/fd/${fd}`);
  }
  return undefined;
};

const ofDirectories = async (pid: string, { path }: Mount): Promise<string | undefined> => {
  for (const link of ['cwd', 'root', 'exe']) {
    const found = await readlink(`/proc/${pid}/${link}`).catch(() => '');
    if (found === path || found.startsWith(`${path}/`)) return found;
  }
  return undefined;
};

/** /proc/PID/maps writes the device in hexadecimal. */
const ofMaps = async (pid: string, { device }: Mount): Promise<string | undefined> => {
  const mapped = device.split(':').map(hex).join(':');
  const maps = (await resultWithin(systemClock, MAPS_MAX, readFile(`/proc/${pid}/maps`, 'utf8'))) ?? '';
  for (const line of maps.split('\n')) {
    const [, , , where, , ...path] = line.split(/ +/);
    if (where === mapped) return path.join(' ');
  }
  return undefined;
};

/**
 * Processes whose mount namespace has a copy of the mount: one that was made with a namespace of its own while it was
 * there, and is not told of its end, keeps it alive. Look for them before it is unmounted; `then` tells who has it still.
 */
export const mountCopies = async (mountpoint: string): Promise<() => Promise<readonly Holder[]>> => {
  const mount = findMount(mountpoint);
  return async () => {
    const holders: Holder[] = [];
    const namespaces = new Set<string>();
    if (!mount) return holders;
    for (const pid of otherProcesses()) {
      try {
        const namespace = await readlink(`/proc/${pid}/ns/mnt`);
        if (namespaces.has(namespace)) continue;
        namespaces.add(namespace);
        const lines = (await readFile(`/proc/${pid}/mountinfo`, 'utf8')).split('\n');
        const copy = lines.map(mountOf).find(({ device }) => device === mount.device);
        if (!copy) continue;
        holders.push({ pid: Number(pid), command: commandOf(pid), path: copy.path });
      } catch {
        // It has ended meanwhile.
      }
    }
    return holders;
  };
};

/** One entry a process; what this process itself has open does not count. */
export const mountHolders = async (mountpoint: string): Promise<readonly Holder[]> => {
  const mount = findMount(mountpoint);
  if (!mount) return [];
  const holders: Holder[] = [];
  for (const pid of otherProcesses()) {
    try {
      const path =
        (await ofDescriptors(pid, mount)) ?? (await ofDirectories(pid, mount)) ?? (await ofMaps(pid, mount));
      if (path === undefined) continue;
      holders.push({ pid: Number(pid), command: commandOf(pid), path });
    } catch {
      // It has ended meanwhile.
    }
  }
  return holders;
};
