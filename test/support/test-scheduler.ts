/** A scheduler as a user starts one: its own process, its queue on disk, a real port. */
import type { ChildProcess } from 'node:child_process';
import { spawn } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { SchedulerClient } from '../../src/control/scheduler-client.js';
import { parseHostPort } from '../../src/leaves/host-port.js';
import { CLI, unwatched } from './run.js';
import type { Teardown } from './scratch.js';
import { guardProcess, releaseProcess, scratchDir } from './scratch.js';
import { within } from './test-daemon.js';

const READY_MAX_MS = 30_000;
const STOP_MAX_MS = 30_000;

interface Running {
  readonly child: ChildProcess;
  readonly exited: Promise<number | null>;
}

/** One queue, and the process that serves it, which can be killed and started again at the same address. */
export class TestScheduler {
  readonly folder: string;
  readonly #config: object;
  #running: Running | undefined;
  #address = '127.0.0.1:0';
  #stderr = '';

  private constructor(folder: string, config: object) {
    this.folder = folder;
    this.#config = config;
  }

  /** `config` as in the configuration file; `listen` and `store` are filled in. */
  static async start(t: Teardown, config: object): Promise<TestScheduler> {
    const folder = scratchDir(t, 'scheduler');
    const scheduler = new TestScheduler(folder, config);
    t.teardown(() => scheduler.kill());
    await scheduler.restart();
    return scheduler;
  }

  get address(): string {
    return this.#address;
  }

  /** All that its processes wrote there. */
  get stderr(): string {
    return this.#stderr;
  }

  /** A new connection; the end of the test closes it. */
  connect(t: Teardown): SchedulerClient {
    const client = new SchedulerClient({ server: parseHostPort(this.#address) });
    t.teardown(() => client[Symbol.dispose]());
    return client;
  }

  /** Starts the process; resolves when it serves. */
  async restart(): Promise<void> {
    await this.begin();
  }

  /** As `restart`; a process that is killed before it serves resolves it too. */
  begin(): Promise<void> {
    const config = join(this.folder, 'config.json');
    mkdirSync(this.folder, { recursive: true });
    writeFileSync(config, JSON.stringify({ ...this.#config, listen: this.#address, store: 'queue' }));
    const child = spawn(...unwatched(process.execPath, [CLI, 'scheduler', '--config', config]), {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    guardProcess(child.pid!);
    const exited = new Promise<number | null>((resolve) => {
      child.once('close', (code) => {
        releaseProcess(child.pid!);
        resolve(code);
      });
    });
    this.#running = { child, exited };
    let stderr = '';
    child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      stderr += text;
      this.#stderr += text;
    });
    const ready = new Promise<void>((resolve) => {
      createInterface({ input: child.stdout! }).on('line', (line) => {
        const { msg, address } = JSON.parse(line) as { msg?: string; address?: string };
        if (msg !== 'ready') return;
        this.#address = address!;
        resolve();
      });
    });
    const ended = exited.then((code) => {
      // Killed: whoever did it knows.
      if (code !== null) throw new Error(`the scheduler ended with ${code} before it was ready\n${stderr}`);
    });
    ended.catch(() => undefined);
    return within(Promise.race([ready, ended]), READY_MAX_MS, () => `the scheduler is not ready\n${stderr}`);
  }

  /** Ends it as a crash does. Harmless when it does not run. */
  async kill(): Promise<void> {
    this.#running?.child.kill('SIGKILL');
    await this.#running?.exited;
    this.#running = undefined;
  }

  /** Asks it to end; resolves with its exit status. */
  async stop(): Promise<number | null> {
    const running = this.#running!;
    running.child.kill('SIGTERM');
    const code = await within(
      running.exited,
      STOP_MAX_MS,
      () => `the scheduler does not stop\n${this.#stderr}`,
    );
    this.#running = undefined;
    return code;
  }
}
