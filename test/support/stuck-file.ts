import type { ChildProcess } from 'node:child_process';
import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { unwatched } from './run.js';
import type { Teardown } from './scratch.js';
import { guardProcess, releaseProcess } from './scratch.js';
import { within } from './test-daemon.js';

const ENTRY = fileURLToPath(new URL('./stuck-file-process.js', import.meta.url));
const ANSWER_MAX_MS = 20_000;

/** A file, in the place of `path`, whose I/O stops when told to (`stuck-file-process.ts`). */
export class StuckFile {
  readonly #child: ChildProcess;
  readonly #lines: string[] = [];
  readonly #waiting = new Set<() => void>();

  private constructor(child: ChildProcess) {
    this.#child = child;
    createInterface({ input: child.stdout! }).on('line', (line) => {
      this.#lines.push(line);
      for (const look of this.#waiting) look();
    });
  }

  /** Its content is zeroes. Start it before the daemon: the end of the test takes it away after that one. */
  static async start(t: Teardown, path: string, size: number): Promise<StuckFile> {
    writeFileSync(path, '');
    const child = spawn(...unwatched(process.execPath, [ENTRY, path, String(size)]), {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    guardProcess(child.pid!);
    const ended = new Promise<void>((resolve) => {
      child.once('close', () => {
        releaseProcess(child.pid!);
        resolve();
      });
    });
    t.teardown(async () => {
      child.stdin!.end();
      await ended;
    });
    const file = new StuckFile(child);
    await file.#said('ready');
    return file;
  }

  /** From now on its reads, writes and syncs wait. */
  hold(): Promise<void> {
    return this.#tell('hold');
  }

  /** Answers them, and goes on answering. */
  release(): Promise<void> {
    return this.#tell('release');
  }

  /** The next sync of each open file fails with EIO. */
  lose(): Promise<void> {
    return this.#tell('lose');
  }

  /** From now on nothing behind the first `offset` bytes can be read. */
  damage(offset: number): Promise<void> {
    return this.#tell(`damage ${offset}`);
  }

  /** Resolves when `count` requests are held. */
  held(count: number): Promise<void> {
    return this.#said(`held ${count}`);
  }

  async #tell(line: string): Promise<void> {
    this.#lines.length = 0;
    this.#child.stdin!.write(`${line}\n`);
    await this.#said(line);
  }

  async #said(line: string): Promise<void> {
    let look = (): void => {};
    const said = new Promise<void>((resolve) => {
      look = () => this.#lines.includes(line) && resolve();
      this.#waiting.add(look);
      look();
    });
    try {
      await within(said, ANSWER_MAX_MS, () => `the stuck file does not say '${line}'`);
    } finally {
      this.#waiting.delete(look);
    }
  }
}
