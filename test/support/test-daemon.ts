/** A migratefs daemon as a user starts one: its own process, a real mount, real ports. */
import type { ChildProcess } from 'node:child_process';
import { spawn, spawnSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { RunOptions, RunResult } from './run.js';
import { CLI, runCli, unwatched } from './run.js';
import type { Teardown } from './scratch.js';
import { fuseMounts, guardProcess, releaseProcess, scratchDir } from './scratch.js';

export type Transport = 'kernel' | 'fuse-native';

export interface TestDaemonOptions {
  /** The backing folder; default: a new scratch folder. */
  readonly imageDir?: string;
  /** Default: a new folder beside it. Give the image folder itself to mount over it. */
  readonly mountpoint?: string;
  readonly transport?: Transport;
  readonly workers?: number;
  /** Default: ports that the kernel chooses. Give addresses to restart a daemon where it was. */
  readonly listen?: string;
  readonly data?: string;
  readonly extraArgs?: readonly string[];
  readonly env?: NodeJS.ProcessEnv;
  /** A program that becomes the daemon, and its arguments: `nsenter` for one in a network namespace. */
  readonly prefix?: readonly string[];
}

interface LogLine {
  readonly msg?: string;
  readonly level?: number | string;
  readonly controlAddress?: string;
  readonly dataAddress?: string;
}

const READY_MAX_MS = 30_000;
const STOP_MAX_MS = 30_000;

const parsed = (line: string): LogLine => {
  try {
    return JSON.parse(line) as LogLine;
  } catch {
    return {};
  }
};

/** Settles like `promise`, or rejects after `milliseconds` with what `what` says then. */
export const within = async <T>(
  promise: Promise<T>,
  milliseconds: number,
  what: () => string,
): Promise<T> => {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what()} (waited ${milliseconds} ms)`)), milliseconds);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
};

export class TestDaemon {
  readonly imageDir: string;
  readonly mountpoint: string;
  readonly transport: Transport;
  /** Resolves with exit status and signal when the process is gone. */
  readonly exited: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
  readonly #child: ChildProcess;
  readonly #log: string[] = [];
  readonly #watchers = new Set<{ wanted: (line: string) => boolean; resolve: (line: string) => void }>();
  #stderr = '';
  #controlAddress = '';
  #dataAddress = '';
  #gone = false;

  private constructor(
    child: ChildProcess,
    places: { imageDir: string; mountpoint: string; transport: Transport },
  ) {
    this.#child = child;
    this.imageDir = places.imageDir;
    this.mountpoint = places.mountpoint;
    this.transport = places.transport;
    if (child.pid !== undefined) guardProcess(child.pid);
    this.exited = new Promise((resolve) => {
      child.once('close', (code, signal) => {
        this.#gone = true;
        if (child.pid !== undefined) releaseProcess(child.pid);
        resolve({ code, signal });
      });
    });
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr += text;
    });
  }

  /**
   * Starts a daemon and resolves when it is mounted and listening. The test's end stops it, by force where needed.
   * Rejects with everything it printed when it ends or stays silent instead.
   */
  static async start(t: Teardown, options: TestDaemonOptions = {}): Promise<TestDaemon> {
    // Where both folders are given, there is nothing to make.
    const scratch =
      options.imageDir !== undefined && options.mountpoint !== undefined ? '' : scratchDir(t, 'daemon');
    const imageDir = options.imageDir ?? join(scratch, 'images');
    const mountpoint = options.mountpoint ?? join(scratch, 'mount');
    const transport = options.transport ?? 'kernel';
    mkdirSync(imageDir, { recursive: true });
    mkdirSync(mountpoint, { recursive: true });
    const [program, ...before] = [...(options.prefix ?? []), process.execPath];
    const child = spawn(
      ...unwatched(program!, [
        ...before,
        CLI,
        'mount',
        imageDir,
        mountpoint,
        `--listen=${options.listen ?? '127.0.0.1:0'}`,
        `--data=${options.data ?? '127.0.0.1:0'}`,
        `--transport=${transport}`,
        ...(options.workers === undefined ? [] : [`--workers=${options.workers}`]),
        ...(options.extraArgs ?? []),
      ]),
      { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, ...options.env } },
    );
    const daemon = new TestDaemon(child, { imageDir, mountpoint, transport });
    t.teardown(() => daemon.kill());
    await daemon.#ready();
    return daemon;
  }

  /** Control address, `host:port`. */
  get controlAddress(): string {
    return this.#controlAddress;
  }

  /** Data address, `host:port`: what a peer migrates to. */
  get dataAddress(): string {
    return this.#dataAddress;
  }

  get pid(): number {
    return this.#child.pid!;
  }

  /** Lines of its log so far. */
  get log(): readonly string[] {
    return this.#log;
  }

  /** Resolves with the first line of its log, from now on, that satisfies `wanted`. */
  logged(wanted: (line: string) => boolean): Promise<string> {
    return new Promise((resolve) => this.#watchers.add({ wanted, resolve }));
  }

  get stderr(): string {
    return this.#stderr;
  }

  /** Path of `name` through the mount. */
  at(name: string): string {
    return join(this.mountpoint, name);
  }

  /** Path of `name` in the backing folder (what is hidden when the mount covers it). */
  below(name: string): string {
    return join(this.imageDir, name);
  }

  get mounted(): boolean {
    return fuseMounts().includes(this.mountpoint);
  }

  /** Runs a client command against this daemon. */
  cli(args: readonly string[], options: RunOptions = {}): Promise<RunResult> {
    return runCli([...args, '--server', this.#controlAddress], options);
  }

  /** Asks it to end and rejects unless it unmounts and exits with 0. */
  async stop(): Promise<void> {
    this.#child.kill('SIGTERM');
    const { code, signal } = await within(
      this.exited,
      STOP_MAX_MS,
      () => `the daemon does not stop\n${this.#said()}`,
    );
    if (code !== 0) throw new Error(`the daemon ended with ${signal ?? `exit ${code}`}\n${this.#said()}`);
    if (this.mounted) throw new Error(`${this.mountpoint} is still mounted after the daemon has ended`);
  }

  /** Ends it at once, as a crash does; the mount is detached afterwards unless `leaveMount`. Harmless when it is gone. */
  async kill(options: { leaveMount?: boolean } = {}): Promise<void> {
    if (!this.#gone) this.#child.kill('SIGKILL');
    await this.exited;
    if (options.leaveMount) return;
    // The mount over an image folder must go before anything below it can be deleted.
    for (const point of fuseMounts()) if (point === this.mountpoint) spawnSync('umount', ['-l', point]);
  }

  async #ready(): Promise<void> {
    const lines = createInterface({ input: this.#child.stdout! });
    const ready = new Promise<void>((resolve) => {
      lines.on('line', (line) => {
        this.#log.push(line);
        for (const watcher of this.#watchers) {
          if (!watcher.wanted(line)) continue;
          this.#watchers.delete(watcher);
          watcher.resolve(line);
        }
        const { msg, controlAddress, dataAddress } = parsed(line);
        if (msg !== 'ready') return;
        this.#controlAddress = controlAddress ?? '';
        this.#dataAddress = dataAddress ?? '';
        resolve();
      });
    });
    const ended = this.exited.then(({ code, signal }) => {
      throw new Error(
        `the daemon ended with ${signal ?? `exit ${code}`} before it was ready\n${this.#said()}`,
      );
    });
    // Nobody may be listening any more when it ends later.
    ended.catch(() => undefined);
    await within(
      Promise.race([ready, ended]),
      READY_MAX_MS,
      () => `the daemon is not ready\n${this.#said()}`,
    );
  }

  #said(): string {
    return `${this.#stderr}${this.#log.slice(-20).join('\n')}`;
  }
}
