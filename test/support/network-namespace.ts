/**
 * Network namespaces (network_namespaces(7)) without names: each lives as long as a process in it, and that process
 * ends with this one. So nothing of it, interfaces and queues included, outlives a test that was killed.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync, readlinkSync } from 'node:fs';
import koffi from 'koffi';
import { runOk } from './run.js';
import { guardProcess, releaseProcess, type Teardown } from './scratch.js';
import { waitFor } from './wait-for.js';

const CLONE_NEWNET = 0x40000000;
const OWN = '/proc/thread-self/ns/net';

const setns = koffi.load('libc.so.6').func('int setns(int fd, int type)') as (
  fd: number,
  type: number,
) => number;

const moveTo = (path: string): void => {
  const fd = openSync(path, 'r');
  try {
    if (setns(fd, CLONE_NEWNET) !== 0) throw new Error(`setns(${path}): errno ${koffi.errno()}`);
  } finally {
    closeSync(fd);
  }
};

/** What an interface has carried since it was made. */
export interface InterfaceCounters {
  readonly bytesReceived: number;
  readonly bytesSent: number;
}

export class NetworkNamespace {
  readonly #holder: ChildProcess;

  private constructor(holder: ChildProcess) {
    this.#holder = holder;
  }

  static async create(t: Teardown): Promise<NetworkNamespace> {
    // `cat` ends with its input, which ends with this process, whatever kills it.
    const holder = spawn('unshare', ['--net', 'cat'], { stdio: ['pipe', 'ignore', 'ignore'] });
    const gone = new Promise<void>((resolve) => holder.once('exit', () => resolve()));
    const pid = holder.pid;
    if (pid === undefined) throw new Error('cannot start unshare');
    guardProcess(pid);
    holder.stdin.on('error', () => undefined);
    t.teardown(async () => {
      holder.kill('SIGKILL');
      await gone;
      releaseProcess(pid);
    });
    const outside = readlinkSync(OWN);
    await waitFor(() => {
      if (holder.exitCode !== null)
        throw new Error(`unshare --net ended with ${holder.exitCode}: root is needed`);
      return readlinkSync(`/proc/${pid}/ns/net`) !== outside;
    }, 'a network namespace of its own');
    return new NetworkNamespace(holder);
  }

  /** A process in it. */
  get pid(): number {
    return this.#holder.pid!;
  }

  /** What runs a program inside when put before it; mounts and process id stay as they would be without. */
  get prefix(): readonly string[] {
    return ['nsenter', `--net=/proc/${this.pid}/ns/net`];
  }

  /** Runs a shell script inside; rejects when a command of it fails. */
  async script(text: string): Promise<void> {
    const [command, ...args] = this.prefix;
    await runOk(command!, [...args, 'sh', '-euc', text]);
  }

  /**
   * Moves this thread inside until the test's end: sockets that it opens and processes that it starts from now on are
   * there.
   */
  enter(t: Teardown): void {
    // The thread's own name would mean the new one.
    const before = openSync(OWN, 'r');
    moveTo(`/proc/${this.pid}/ns/net`);
    t.teardown(() => {
      const failed = setns(before, CLONE_NEWNET) !== 0;
      closeSync(before);
      if (failed) throw new Error(`cannot leave the network namespace: errno ${koffi.errno()}`);
    });
  }

  /** Counters of one of its interfaces (proc_net_dev: received bytes first, sent bytes ninth). */
  counters(name: string): InterfaceCounters {
    const line = readFileSync(`/proc/${this.pid}/net/dev`, 'utf8')
      .split('\n')
      .find((each) => each.trimStart().startsWith(`${name}:`));
    if (line === undefined) throw new Error(`no interface ${name} in the namespace of process ${this.pid}`);
    const fields = line
      .slice(line.indexOf(':') + 1)
      .trim()
      .split(/\s+/)
      .map(Number);
    return { bytesReceived: fields[0]!, bytesSent: fields[8]! };
  }
}
