/**
 * Who writes to backing files past the mount: what they write is neither tracked nor mirrored, and no fence holds them
 * back. Processes from /proc (proc_pid_fdinfo(5)), loop devices from the kernel (loop(4)). Not seen: processes of other
 * PID namespaces than this one and those below it, and what is only mapped, its descriptor closed.
 */
import { closeSync, constants, fstatSync, openSync, readdirSync, readFileSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { resultWithin, systemClock } from '../leaves/clock.js';
import { millis } from '../leaves/units.js';
import { ioctl } from './libc.js';
import { mountOf } from './mount-table.js';
import { commandOf, otherProcesses } from './other-processes.js';

/** What holds a file open for writing. */
export interface ForeignWriter {
  /** `qemu-system-x86 (pid 4711)`, `/dev/loop0`. */
  readonly who: string;
  /** Index of the file in the list that was asked for. */
  readonly file: number;
}

/** Descriptors looked at between two turns of others; each takes some 10 us. */
const LOOKS_PER_TURN = 64;
/** A file system that does not answer is not the one of the images, or they would hang too. */
const STAT_MAX = millis(500);

/** struct loop_info64 and its constants in include/uapi/linux/loop.h. */
const LOOP_GET_STATUS64 = 0x4c05;
const LOOP_INFO64_BYTES = 232;
const LO_FLAGS_OFFSET = 52;
const LO_FLAGS_READ_ONLY = 1;

/** Files told apart as the kernel does. */
class BackingFiles {
  readonly #identities: readonly string[];
  readonly #inodes: ReadonlySet<string>;
  readonly #devices: ReadonlySet<bigint>;

  constructor(fds: readonly number[]) {
    const stats = fds.map((fd) => fstatSync(fd, { bigint: true }));
    this.#identities = stats.map(({ dev, ino }) => `${dev} ${ino}`);
    this.#inodes = new Set(stats.map(({ ino }) => String(ino)));
    this.#devices = new Set(stats.map(({ dev }) => dev));
  }

  /** Negative: none of them. */
  indexOf(device: bigint, inode: bigint): number {
    return this.#identities.indexOf(`${device} ${inode}`);
  }

  mayHave(inode: string): boolean {
    return this.#inodes.has(inode);
  }

  /** `device` as in mountinfo, major:minor. */
  areOn(device: string): boolean {
    const [major = 0n, minor = 0n] = device.split(':').map(BigInt);
    return this.#devices.has(((major & 0xfffn) << 8n) | (minor & 0xffn) | ((minor & 0xfff00n) << 12n));
  }
}

const orElse = <T>(look: () => T, otherwise: T): T => {
  try {
    return look();
  } catch {
    return otherwise; // It has ended meanwhile, or is none of this user's business.
  }
};

const field = (info: string, name: string): string | undefined =>
  new RegExp(`^${name}:\\s*(\\S+)`, 'm').exec(info)?.[1];

const isWritable = (info: string): boolean =>
  (Number.parseInt(field(info, 'flags') ?? '0', 8) & (constants.O_WRONLY | constants.O_RDWR)) !== 0;

/**
 * Whether the descriptor leads to another FUSE server than the images' own file system: our mount shows the inode numbers
 * of the backing files, and who asks a FUSE server about a file may wait for it.
 */
const isServed = (pid: string, mountId: string | undefined, files: BackingFiles): boolean => {
  const lines = orElse(() => readFileSync(`/proc/${pid}/mountinfo`, 'utf8'), '').split('\n');
  const mount = lines.map(mountOf).find(({ id }) => id === mountId);
  return mount !== undefined && /^fuse(\.|$)/.test(mount.type) && !files.areOn(mount.device);
};

const identified = async (path: string, files: BackingFiles): Promise<number> => {
  const found = await resultWithin(systemClock, STAT_MAX, stat(path, { bigint: true }));
  return found ? files.indexOf(found.dev, found.ino) : -1;
};

const writersAmong = async (
  pid: string,
  files: BackingFiles,
  turn: () => Promise<void>,
): Promise<readonly ForeignWriter[]> => {
  const writers = new Map<number, ForeignWriter>();
  let looks = 0;
  for (const fd of orElse(() => readdirSync(`/proc/${pid}/fd`), [])) {
    if (++looks % LOOKS_PER_TURN === 0) await turn();
    const info = orElse(() => readFileSync(`/proc/${pid}/fdinfo/${fd}`, 'utf8'), '');
    const inode = field(info, 'ino');
    // Linux before 5.14 does not tell the inode.
    if (!isWritable(info) || (inode !== undefined && !files.mayHave(inode))) continue;
    if (isServed(pid, field(info, 'mnt_id'), files)) continue;
    const file = await identified(`/proc/${pid}/fd/${fd}`, files);
    if (file < 0) continue;
    writers.set(file, { who: `${orElse(() => commandOf(pid), '?')} (pid ${pid})`, file });
  }
  return [...writers.values()];
};

const loopDevices = (files: BackingFiles): readonly ForeignWriter[] => {
  const writers: ForeignWriter[] = [];
  for (const name of orElse(() => readdirSync('/sys/block'), [])) {
    // Only one that is in use has it.
    if (!name.startsWith('loop') || !orElse(() => readdirSync(`/sys/block/${name}/loop`), undefined))
      continue;
    const device = `/dev/${name}`;
    const fd = orElse(() => openSync(device, constants.O_RDONLY | constants.O_NONBLOCK), -1);
    if (fd < 0) continue;
    const info = Buffer.alloc(LOOP_INFO64_BYTES);
    const result = ioctl(fd, LOOP_GET_STATUS64, info);
    closeSync(fd);
    if (result < 0 || info.readUInt32LE(LO_FLAGS_OFFSET) & LO_FLAGS_READ_ONLY) continue;
    const file = files.indexOf(info.readBigUInt64LE(0), info.readBigUInt64LE(8));
    if (file >= 0) writers.push({ who: device, file });
  }
  return writers;
};

/**
 * Processes and loop devices that have one of the files `fds` open for writing, this process aside. `turn` lets other work
 * of the thread run once.
 */
export const foreignWriters = async (
  fds: readonly number[],
  turn: () => Promise<void>,
): Promise<readonly ForeignWriter[]> => {
  const files = new BackingFiles(fds);
  const writers = [...loopDevices(files)];
  for (const pid of otherProcesses()) {
    await turn();
    writers.push(...(await writersAmong(pid, files, turn)));
  }
  return writers;
};
