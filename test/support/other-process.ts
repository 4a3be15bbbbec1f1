import type { ChildProcess } from 'node:child_process';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { unwatched } from './run.js';
import { guardProcess, releaseProcess, type Teardown } from './scratch.js';

const ENTRY = fileURLToPath(new URL('./file-process.js', import.meta.url));

/** A process that opens one file and performs calls on it, see `file-process.ts`. */
export class OtherProcess {
  readonly #child: ChildProcess;
  readonly #lines: AsyncIterator<string>;

  private constructor(child: ChildProcess) {
    this.#child = child;
    this.#lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
  }

  static async start(t: Teardown, path: string, flags: number): Promise<OtherProcess> {
    const child = spawn(...unwatched(process.execPath, [ENTRY, path, String(flags)]), {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    guardProcess(child.pid!);
    const other = new OtherProcess(child);
    t.teardown(() => other.kill());
    const ready = await other.#answer();
    if (ready !== 'ready') throw new Error(`the other process: ${String(ready)}`);
    return other;
  }

  /** The call's result, or the name of its error. */
  call(command: string, ...args: readonly (string | number)[]): Promise<unknown> {
    this.#child.stdin!.write(`${JSON.stringify([command, ...args])}\n`);
    return this.#answer();
  }

  /** Ends it as a crash does; resolves when it is gone. */
  async kill(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    this.#child.kill('SIGKILL');
    await once(this.#child, 'exit');
    releaseProcess(this.#child.pid!);
  }

  async #answer(): Promise<unknown> {
    const { value, done } = await this.#lines.next();
    if (done) throw new Error('the other process has ended');
    return JSON.parse(value);
  }
}
