/** Runs programs to their end. */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { guardProcess, releaseProcess } from './scratch.js';

/** The compiled command line of the build that this file belongs to. */
export const CLI = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));

/**
 * The command line that runs a program as users run it: the test runner loads itself into every Node process that a
 * test spawns, through NODE_OPTIONS. `env` replaces itself by the program, so the process id is the program's.
 */
export const unwatched = (command: string, args: readonly string[]): [string, string[]] => [
  'env',
  ['-u', 'NODE_OPTIONS', command, ...args],
];

/** A program that takes longer hangs; it is killed, and its result says SIGKILL. */
const RUN_MAX_MS = 120_000;

export interface RunResult {
  /** Exit status; 128 + the signal's number is not made up: null when a signal ended it. */
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  readonly cwd?: string;
  readonly env?: NodeJS.ProcessEnv;
  readonly signal?: AbortSignal;
  readonly input?: string;
  /** Milliseconds until it is killed; default: two minutes. */
  readonly timeout?: number;
}

/** Runs a program and collects what it prints; rejects only when `signal` aborts. */
export const run = (command: string, args: readonly string[], options: RunOptions = {}): Promise<RunResult> =>
  new Promise((resolve, reject) => {
    const child = spawn(...unwatched(command, args), {
      cwd: options.cwd,
      env: options.env ?? process.env,
      signal: options.signal,
      timeout: options.timeout ?? RUN_MAX_MS,
      killSignal: 'SIGKILL',
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    if (child.pid !== undefined) guardProcess(child.pid);
    let stdout = '';
    let stderr = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout += text;
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr += text;
    });
    // A program that does not read its input closes the pipe early.
    child.stdin.on('error', () => undefined).end(options.input ?? '');
    child.on('error', reject);
    child.on('close', (code, signal) => {
      if (child.pid !== undefined) releaseProcess(child.pid);
      resolve({ code, signal, stdout, stderr });
    });
  });

/** Like `run`, but anything but exit status 0 rejects, with what the program said. */
export const runOk = async (
  command: string,
  args: readonly string[],
  options: RunOptions = {},
): Promise<RunResult> => {
  const result = await run(command, args, options);
  if (result.code !== 0) {
    const how = result.signal ?? `exit ${result.code}`;
    throw new Error(`${command} ${args.join(' ')}: ${how}\n${result.stderr}${result.stdout}`);
  }
  return result;
};

/** The `migratefs` command with these arguments. */
export const runCli = (args: readonly string[], options: RunOptions = {}): Promise<RunResult> =>
  run(process.execPath, [CLI, ...args], options);
