/**
 * What a mount asks of its backing file system, without a tracer: the backing folder is itself a mount, whose process
 * can be stopped. A thread that waits for it shows its system call, arguments included, in /proc/PID/task/TID/syscall
 * (proc_pid_syscall(5)).
 */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { basename } from 'node:path';
import type { Teardown } from './scratch.js';
import { TestDaemon } from './test-daemon.js';
import { waitFor } from './wait-for.js';

type CallName = 'pread64' | 'pwrite64' | 'fsync' | 'fdatasync' | 'fallocate';

/** System call numbers (asm/unistd_64.h; asm-generic/unistd.h). */
const CALLS: Readonly<Record<string, Readonly<Record<CallName, number>>>> = {
  x64: { pread64: 17, pwrite64: 18, fsync: 74, fdatasync: 75, fallocate: 285 },
  arm64: { pread64: 67, pwrite64: 68, fsync: 82, fdatasync: 83, fallocate: 47 },
};

/** Open flags of one descriptor, by fdinfo(5). */
const flagsOf = (pid: number, fd: number): number => {
  const info = readFileSync(`/proc/${pid}/fdinfo/${fd}`, 'utf8');
  return Number.parseInt(/^flags:\s*([0-7]+)$/m.exec(info)![1]!, 8);
};

/** Open flags of every descriptor, but for O_PATH ones, that the process holds of a file of that name. */
export const descriptorFlags = (pid: number, name: string): readonly number[] => {
  const O_PATH = 0o10_000_000;
  return readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
    try {
      if (basename(readlinkSync(`/proc/${pid}/fd/${fd}`)) !== name) return [];
      const flags = flagsOf(pid, Number(fd));
      return (flags & O_PATH) === 0 ? [flags] : [];
    } catch {
      return []; // closed meanwhile
    }
  });
};

/** A system call that has not returned. */
export interface WaitingCall {
  readonly fd: number;
  /** Open flags of `fd`. */
  readonly flags: number;
  /** All six arguments. */
  readonly args: readonly bigint[];
}

export class HeldBacking {
  /** The daemon under test. */
  readonly daemon: TestDaemon;
  readonly #below: TestDaemon;
  #held = false;

  private constructor(daemon: TestDaemon, below: TestDaemon) {
    this.daemon = daemon;
    this.#below = below;
  }

  static async start(t: Teardown, options: { workers: number }): Promise<HeldBacking> {
    const below = await TestDaemon.start(t, { workers: 4 });
    const held = new HeldBacking(
      await TestDaemon.start(t, { ...options, imageDir: below.mountpoint }),
      below,
    );
    t.teardown(() => held.#held && held.letGo());
    return held;
  }

  async stop(): Promise<void> {
    await this.daemon.stop();
    await this.#below.stop();
  }

  /** From now on nothing that reaches the backing returns: touch the mount from other threads only. */
  async hold(): Promise<void> {
    const { pid } = this.#below;
    process.kill(pid, 'SIGSTOP');
    this.#held = true;
    const stopped = (tid: string): boolean =>
      /^State:\tT/m.test(readFileSync(`/proc/${pid}/task/${tid}/status`, 'utf8'));
    await waitFor(() => readdirSync(`/proc/${pid}/task`).every(stopped), 'all its threads have stopped');
  }

  letGo(): void {
    process.kill(this.#below.pid, 'SIGCONT');
    this.#held = false;
  }

  /** The calls of this kind in which threads of the daemon wait now. */
  #waiting(name: CallName): readonly WaitingCall[] {
    const { pid } = this.daemon;
    return readdirSync(`/proc/${pid}/task`).flatMap((tid) => {
      const [number, ...words] = readFileSync(`/proc/${pid}/task/${tid}/syscall`, 'utf8').trim().split(' ');
      if (Number(number) !== CALLS[process.arch]![name]) return [];
      const args = words.slice(0, 6).map(BigInt);
      const fd = Number(args[0]);
      return [{ fd, flags: flagsOf(pid, fd), args }];
    });
  }

  /** Resolves once `count` threads of the daemon wait in such a call. */
  async waiting(name: CallName, count = 1): Promise<readonly WaitingCall[]> {
    let found: readonly WaitingCall[] = [];
    await waitFor(() => {
      found = this.#waiting(name);
      return found.length >= count;
    }, `${count} threads in ${name}`);
    return found;
  }
}
