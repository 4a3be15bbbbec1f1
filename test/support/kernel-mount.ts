import type { ChildProcess } from 'node:child_process';
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { Test } from 'tap';

const ENTRY = fileURLToPath(new URL('./mount-process.js', import.meta.url));

interface MountSettings {
  readonly workers?: number;
  readonly passthrough?: boolean;
  readonly openFilesMax?: number;
}

/** A kernel mount served by a process of its own (`mount-process.ts`), unmounted and removed when the test ends. */
export class KernelMount {
  readonly dir: string;
  readonly mountpoint: string;
  readonly exited: Promise<number>;
  /** What the daemon logged. */
  stderr = '';
  readonly #child: ChildProcess;
  readonly #answers: string[] = [];
  readonly #waiting: ((line: string) => void)[] = [];

  private constructor(dir: string, mountpoint: string, options: MountSettings = {}) {
    this.dir = dir;
    this.mountpoint = mountpoint;
    this.#child = spawn(
      process.execPath,
      [
        ENTRY,
        dir,
        mountpoint,
        String(options.workers ?? 2),
        (options.passthrough ?? true) ? 'auto' : 'off',
        String(options.openFilesMax ?? ''),
      ],
      { stdio: 'pipe' },
    );
    this.exited = new Promise((resolve) => this.#child.once('exit', (code) => resolve(code ?? -1)));
    this.#child.stderr?.on('data', (chunk: Buffer) => {
      this.stderr += chunk.toString();
    });
    createInterface({ input: this.#child.stdout! }).on('line', (line) => {
      const waiter = this.#waiting.shift();
      if (waiter) waiter(line);
      else this.#answers.push(line);
    });
  }

  /** `over`: mount over the image directory itself. `ownDisk`: which is a tmpfs. */
  static async start(
    t: Test,
    options: MountSettings & { over?: boolean; ownDisk?: boolean } = {},
  ): Promise<KernelMount> {
    const base = mkdtempSync(join(tmpdir(), 'mfs-kernel-'));
    const dir = join(base, 'images');
    const mountpoint = options.over ? dir : join(base, 'mnt');
    chmodSync(base, 0o755);
    mkdirSync(dir);
    if (!options.over) mkdirSync(mountpoint);
    if (options.ownDisk) execFileSync('mount', ['-t', 'tmpfs', 'mfs-disk', dir]);
    const mount = new KernelMount(dir, mountpoint, options);
    t.teardown(async () => {
      spawnSync('umount', ['-l', mountpoint], { stdio: 'ignore' });
      await mount.exited;
      if (options.ownDisk) spawnSync('umount', ['-l', dir], { stdio: 'ignore' });
      rmSync(base, { recursive: true });
    });
    const line = await mount.answer();
    if (line !== 'ready') throw new Error(line);
    return mount;
  }

  /** Starts one that is expected to fail; resolves to the line that says why. */
  static async failure(t: Test, dir: string, mountpoint: string): Promise<string> {
    const mount = new KernelMount(dir, mountpoint, { workers: 1 });
    t.teardown(() => spawnSync('umount', ['-l', mountpoint], { stdio: 'ignore' }));
    const line = await mount.answer();
    t.equal(await mount.exited, 1, 'exits with 1');
    return line;
  }

  path(name: string): string {
    return join(this.mountpoint, name);
  }

  /** Sends a command of `mount-process.ts` and resolves to its answer. */
  tell(command: string): Promise<string> {
    const answer = this.answer();
    this.#child.stdin?.write(`${command}\n`);
    return answer;
  }

  answer(): Promise<string> {
    const line = this.#answers.shift();
    if (line !== undefined) return Promise.resolve(line);
    return new Promise((resolve, reject) => {
      this.#waiting.push(resolve);
      void this.exited.then(() => reject(new Error(`the mount process has ended: ${this.stderr}`)));
    });
  }

  kill(): void {
    this.#child.kill('SIGKILL');
  }

  get pid(): number {
    return this.#child.pid!;
  }

  get mounted(): boolean {
    return readFileSync('/proc/self/mounts', 'utf8').includes(` ${this.mountpoint} fuse.migratefs `);
  }
}
