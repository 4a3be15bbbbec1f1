import type { ChildProcess } from 'node:child_process';
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { unwatched } from './run.js';
import type { Teardown } from './scratch.js';
import { guardProcess, releaseProcess } from './scratch.js';

const ENTRY = fileURLToPath(new URL('./file-user-process.js', import.meta.url));

/** A process with one image open, whose calls the test thread does not have to wait for. */
export class FileUser {
  readonly pid: number;
  /** Resolves with the signal that ended it. */
  readonly ended: Promise<NodeJS.Signals | null>;
  readonly #child: ChildProcess;
  readonly #answers: string[] = [];
  readonly #waiting: ((line: string) => void)[] = [];

  private constructor(child: ChildProcess) {
    this.#child = child;
    this.pid = child.pid!;
    guardProcess(this.pid);
    this.ended = new Promise((resolve) => {
      child.once('close', (_code, signal) => {
        releaseProcess(this.pid);
        resolve(signal);
      });
    });
    createInterface({ input: child.stdout! }).on('line', (line) => {
      const waiting = this.#waiting.shift();
      if (waiting) waiting(line);
      else this.#answers.push(line);
    });
  }

  static async start(t: Teardown, path: string): Promise<FileUser> {
    const child = spawn(...unwatched(process.execPath, [ENTRY, path]), {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    const user = new FileUser(child);
    t.teardown(async () => {
      child.kill('SIGKILL');
      await user.ended;
    });
    await user.#answer();
    return user;
  }

  read(offset: number, length: number): Promise<string> {
    return this.#ask(`read ${offset} ${length}`);
  }

  /** Resolves to the number of bytes, or the error. */
  write(offset: number, text: string): Promise<string> {
    return this.#ask(`write ${offset} ${text}`);
  }

  sync(): Promise<string> {
    return this.#ask('sync');
  }

  kill(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** Closes the file and ends. */
  async close(): Promise<void> {
    this.#child.stdin!.end();
    await this.ended;
  }

  #ask(line: string): Promise<string> {
    const answer = this.#answer();
    this.#child.stdin!.write(`${line}\n`);
    return answer;
  }

  #answer(): Promise<string> {
    const line = this.#answers.shift();
    if (line !== undefined) return Promise.resolve(line);
    return new Promise((resolve) => this.#waiting.push(resolve));
  }
}
