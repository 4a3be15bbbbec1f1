/** What is mounted where, from /proc/self/mountinfo (proc_pid_mountinfo(5)), and taking away what this process has mounted. */
import { readFileSync } from 'node:fs';
import { MigrateFsError } from '../leaves/errors.js';
import type { LogSink } from '../leaves/log-sink.js';
import { Errno, errnoName } from './errno.js';
import { cString, MNT_DETACH, MNT_FORCE, UMOUNT_NOFOLLOW, umount2 } from './libc.js';

export interface Mount {
  readonly id: string;
  /** major:minor of the file system; no other one has it as long as that is in use. */
  readonly device: string;
  readonly path: string;
  readonly type: string;
  readonly source: string;
}

/** What mountinfo writes as octal: space, tab, newline, backslash, hash. */
const unescaped = (text: string): string =>
  text.replaceAll(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));

/** A line of mountinfo. */
export const mountOf = (line: string): Mount => {
  const [before = '', after = ''] = line.split(' - ');
  const [id = '', , device = '', , path = ''] = before.split(' ');
  const [type = '', source = ''] = after.split(' ');
  return { id, device, path: unescaped(path), type, source };
};

/** The mounts at `path`, a later one over the earlier ones. */
export const mountsAt = (path: string): readonly Mount[] =>
  readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .map(mountOf)
    .filter((mount) => mount.path === path);

/** A mount that this process has made. Only that one is taken away, never what is over it or was below it. */
export class OwnMount {
  readonly path: string;
  /** Undefined: it is no more. */
  #device: string | undefined;

  /** Right after it was made. */
  constructor(path: string) {
    this.path = path;
    this.#device = mountsAt(path).at(-1)?.device;
  }

  /** Its file system is gone: what is mounted there from now on is somebody else's, and may have its number. */
  end(): void {
    this.#device = undefined;
  }

  get isMounted(): boolean {
    return mountsAt(this.path).some(({ device }) => device === this.#device);
  }

  /** Whether it can be unmounted by its path. FAILED_PRECONDITION: it is there, below another one. */
  get isOnTop(): boolean {
    if (!this.isMounted) return false;
    const top = mountsAt(this.path).at(-1);
    if (top?.device === this.#device) return true;
    throw new MigrateFsError(
      'FAILED_PRECONDITION',
      `another file system (${top?.source}) is mounted over ${this.path}: unmount that one first`,
    );
  }

  /** FAILED_PRECONDITION: files are open. `flags`: MNT_DETACH, MNT_FORCE. What is not mounted any more is no error. */
  unmount(flags: number): void {
    if (!this.isOnTop) return;
    const result = umount2(cString(this.path), flags | UMOUNT_NOFOLLOW);
    if (result >= 0 || result === -Errno.EINVAL || result === -Errno.ENOENT) return;
    const why =
      result === -Errno.EBUSY
        ? `${this.path} is in use (fuser -vm ${this.path} names the processes): close its files, or detach it lazily`
        : `cannot unmount ${this.path}: ${errnoName(result)}`;
    throw new MigrateFsError('FAILED_PRECONDITION', why);
  }

  /** Detaches it from whoever uses it, as a daemon at its end does: without one they would hang. */
  abandon(log: LogSink): void {
    try {
      this.unmount(MNT_DETACH | MNT_FORCE);
    } catch (error) {
      log('error', 'the mount stays', { reason: (error as Error).message });
    }
  }
}
