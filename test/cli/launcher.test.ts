/** scripts/migratefs and scripts/setup, in a checkout of their own whose program only says that it was run. */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { chmodSync, cpSync, mkdirSync, readFileSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { type RunResult, run } from '../support/run.js';
import { guardProcess, releaseProcess, scratchDir, type Teardown } from '../support/scratch.js';

const SCRIPTS = fileURLToPath(new URL('../../../scripts', import.meta.url));
const LONG_AGO = new Date('2020-01-01');

/** Says its build and its arguments; `mount` goes on until it is ended. */
const PROGRAM = `console.log('old build', ...process.argv.slice(2));
if (process.argv[2] === 'mount') console.log('threads', process.env.UV_THREADPOOL_SIZE);
if (process.argv[2] === 'mount') setInterval(() => undefined, 1000);
`;

class Checkout {
  readonly folder: string;

  constructor(t: Teardown) {
    this.folder = scratchDir(t, 'checkout');
    for (const folder of ['src/cli', 'proto', 'test', 'bench', 'bin', 'build/src/cli', 'node_modules'])
      mkdirSync(this.at(folder), { recursive: true });
    cpSync(SCRIPTS, this.at('scripts'), { recursive: true });
    for (const file of ['package-lock.json', 'tsconfig.json']) this.#write(file, '{}');
    this.#write('src/cli/main.ts', '');
    this.#write('build/src/cli/main.js', PROGRAM);
    const hash = createHash('sha256').update('{}').digest('hex');
    this.#write('node_modules/.migratefs-lock', `${hash}  -\n`);
    // Whatever is built or installed goes through npm.
    this.#write('bin/npm', `#!/bin/sh\necho "$*" >> ${this.at('npm-calls')}\n`);
    chmodSync(this.at('bin/npm'), 0o755);
    this.#write('npm-calls', '');
    this.#write('build/.migratefs-built', '');
  }

  at(path: string): string {
    return join(this.folder, path);
  }

  /** As `git pull` does: the sources are newer than the build. */
  change(): void {
    utimesSync(this.at('build/.migratefs-built'), LONG_AGO, LONG_AGO);
  }

  get npmCalls(): string {
    return readFileSync(this.at('npm-calls'), 'utf8');
  }

  run(script: string, ...args: string[]): Promise<RunResult> {
    return run(this.at(`scripts/${script}`), args, { env: this.#env });
  }

  /** Resolves with its process id and what it says once it runs. */
  async daemon(t: Teardown): Promise<{ pid: number; said: string }> {
    const child = spawn(this.at('scripts/migratefs'), ['mount', '/images'], {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: this.#env,
    });
    guardProcess(child.pid!);
    t.teardown(async () => {
      const ended = once(child, 'exit');
      child.kill('SIGKILL');
      await ended;
      releaseProcess(child.pid!);
    });
    let said = '';
    for await (const chunk of child.stdout) {
      said += String(chunk);
      if (said.includes('threads')) break;
    }
    return { pid: child.pid!, said };
  }

  get #env(): NodeJS.ProcessEnv {
    const { NODE_OPTIONS: _, ...env } = process.env;
    return { ...env, PATH: `${this.at('bin')}:${process.env['PATH']}` };
  }

  #write(path: string, text: string): void {
    writeFileSync(this.at(path), text);
  }
}

t.test('a changed checkout is built before it runs', async (t) => {
  const checkout = new Checkout(t);
  const current = await checkout.run('migratefs', 'status');
  t.equal(current.stdout, 'old build status\n');
  t.equal(current.stderr, '');
  t.equal(checkout.npmCalls, '', 'nothing to do');
  checkout.change();
  const changed = await checkout.run('migratefs', 'status');
  t.equal(changed.stdout, 'old build status\n', changed.stderr);
  t.match(checkout.npmCalls, /^run --silent build$/m);
});

t.test('the code below a running daemon does not change', async (t) => {
  const checkout = new Checkout(t);
  const { pid, said } = await checkout.daemon(t);
  t.equal(said, 'old build mount /images\nthreads 64\n', 'a daemon has more than four threads for its files');
  t.equal((await checkout.run('migratefs', 'status')).stderr, '');
  checkout.change();
  const client = await checkout.run('migratefs', 'status', '--json');
  t.equal(client.stdout, 'old build status --json\n');
  t.equal(client.stderr, '', 'what reads its output is not disturbed');
  const second = await checkout.run('migratefs', 'scheduler');
  t.equal(second.stdout, 'old build scheduler\n');
  t.match(second.stderr, new RegExp(`has changed, and is not built .* \\(process ${pid}\\)`));
  const setup = await checkout.run('setup', '--runtime');
  t.equal(setup.code, 1);
  t.match(setup.stderr, new RegExp(`runs from this build \\(process ${pid}\\): end it first`));
  t.equal(checkout.npmCalls, '', 'nothing was built or installed');
});
