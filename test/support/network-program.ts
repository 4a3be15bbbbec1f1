/** A server that somebody else wrote, in a network namespace of a test. */
import { spawn } from 'node:child_process';
import type { NetworkNamespace } from './network-namespace.js';
import { unwatched } from './run.js';
import { guardProcess, releaseProcess, type Teardown } from './scratch.js';

const OUTPUT_LENGTH_MAX = 100_000;

export class NetworkProgram {
  #output = '';
  #ended: string | undefined;

  /** Starts it until the test's end. */
  constructor(t: Teardown, namespace: NetworkNamespace, command: string, args: readonly string[]) {
    const [enter, ...options] = namespace.prefix;
    const child = spawn(...unwatched(enter!, [...options, command, ...args]), {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const { pid } = child;
    if (pid !== undefined) guardProcess(pid);
    for (const stream of [child.stdout, child.stderr])
      stream.setEncoding('utf8').on('data', (text: string) => {
        this.#output = (this.#output + text).slice(-OUTPUT_LENGTH_MAX);
      });
    const gone = new Promise<void>((resolve) => {
      child.once('error', (error) => {
        this.#ended = error.message;
        resolve();
      });
      child.once('exit', (code, signal) => {
        this.#ended = `ended with ${signal ?? code}`;
        if (pid !== undefined) releaseProcess(pid);
        resolve();
      });
    });
    t.teardown(async () => {
      child.kill('SIGKILL');
      await gone;
    });
  }

  /** What it has printed; throws with that when it has ended by itself. */
  get output(): string {
    if (this.#ended !== undefined) throw new Error(`${this.#ended}\n${this.#output}`);
    return this.#output;
  }
}
