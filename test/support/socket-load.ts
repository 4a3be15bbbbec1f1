/** Traffic of others: plain TCP from one host of a test bed to another, counted where it arrives. */
import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { unwatched } from './run.js';
import { guardProcess, releaseProcess, type Teardown } from './scratch.js';
import type { BedHost } from './test-bed.js';
import { waitFor } from './wait-for.js';

const PROGRAM = fileURLToPath(new URL('./socket-load-process.js', import.meta.url));

export interface SocketLoadOptions {
  /** Bytes per second; absent: as fast as it goes. */
  readonly rate?: number;
  readonly connections?: number;
}

class End {
  readonly child: ChildProcess;
  readonly #gone: Promise<void>;

  constructor(t: Teardown, host: BedHost, args: readonly string[]) {
    const [command, ...before] = host.namespace.prefix;
    this.child = spawn(...unwatched(command!, [...before, process.execPath, PROGRAM, ...args]), {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    const pid = this.child.pid!;
    guardProcess(pid);
    this.#gone = new Promise((resolve) =>
      this.child.once('exit', () => {
        releaseProcess(pid);
        resolve();
      }),
    );
    t.teardown(() => this.end());
  }

  /** Resolves when it has ended; harmless when it has before. */
  async end(): Promise<void> {
    this.child.kill('SIGKILL');
    await this.#gone;
  }
}

export class SocketLoad {
  readonly #source: End;
  readonly #sink: End;
  #bytes = 0;

  private constructor(source: End, sink: End) {
    this.#source = source;
    this.#sink = sink;
  }

  static async start(
    t: Teardown,
    from: BedHost,
    to: BedHost,
    { rate = 0, connections = 1 }: SocketLoadOptions = {},
  ): Promise<SocketLoad> {
    const sink = new End(t, to, ['sink', to.address]);
    const lines = createInterface({ input: sink.child.stdout! });
    const port = await new Promise<string>((resolve) => lines.once('line', resolve));
    const source = new End(t, from, ['source', to.address, port, String(rate), String(connections)]);
    const load = new SocketLoad(source, sink);
    lines.on('line', (line) => {
      load.#bytes = Number(line);
    });
    await waitFor(() => load.#bytes > 0, 'the load arrives');
    return load;
  }

  /** Delivered so far; 100 ms old at most. */
  get bytes(): number {
    return this.#bytes;
  }

  async stop(): Promise<void> {
    await this.#source.end();
    await this.#sink.end();
  }
}
