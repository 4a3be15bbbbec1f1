/** How long guests wait when a daemon is started: until its mount answers, until its control port does, and the CPU time. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Cleanup } from '../test/support/cleanup.js';
import { CLI } from '../test/support/run.js';
import { guardProcess, releaseProcess, removeTree } from '../test/support/scratch.js';
import { cpuSeconds } from './process-figures.js';
import { inTurn } from './rounds.js';
import { median } from './statistics.js';
import { fixed, formatTable } from './table.js';

export interface StartBenchOptions {
  readonly rounds: number;
  /** Where the image is made. */
  readonly dir: string;
  /** `build/src/cli/main.js` of another checkout, to compare with. */
  readonly against?: string;
}

/** Seconds since the process was started. */
interface Start {
  readonly served: number;
  readonly ready: number;
  readonly cpu: number;
}

const IMAGE = 'image.raw';
const POLL_MILLIS = 2;
const START_MAX_MILLIS = 20_000;

const ROWS: readonly (readonly [string, keyof Start])[] = [
  ['until the mount answers, s', 'served'],
  ['until ready, s', 'ready'],
  ['CPU until ready, s', 'cpu'],
];

const logged = async (child: ChildProcess, message: string): Promise<void> => {
  for await (const line of createInterface({ input: child.stdout! }))
    if ((JSON.parse(line) as { msg: string }).msg === message) return;
  throw new Error(`the daemon ended before it was ${message}`);
};

const answering = async (path: string, signal: AbortSignal): Promise<void> => {
  while (!signal.aborted) {
    const found = await stat(path).catch(() => undefined);
    if (found) return;
    await sleep(POLL_MILLIS);
  }
  throw signal.reason;
};

const measureStart = async (cli: string, imageDir: string, mountpoint: string): Promise<Start> => {
  const args = ['mount', imageDir, mountpoint, '--listen', '127.0.0.1:0', '--data', '127.0.0.1:0'];
  const begin = performance.now();
  const since = (): number => (performance.now() - begin) / 1000;
  const child = spawn(process.execPath, [cli, ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
  const exited = once(child, 'exit');
  guardProcess(child.pid!);
  try {
    const [served, [ready, cpu]] = await Promise.all([
      answering(join(mountpoint, IMAGE), AbortSignal.timeout(START_MAX_MILLIS)).then(since),
      logged(child, 'ready').then(() => [since(), cpuSeconds(child.pid!)] as const),
    ]);
    return { served, ready, cpu };
  } finally {
    child.kill('SIGTERM');
    await exited;
    releaseProcess(child.pid!);
  }
};

export const benchStart = async (options: StartBenchOptions, cleanup: Cleanup): Promise<void> => {
  const folder = mkdtempSync(join(options.dir, 'mfs-start-'));
  cleanup.teardown(() => removeTree(folder));
  const imageDir = join(folder, 'images');
  const mountpoint = join(folder, 'mount');
  for (const each of [imageDir, mountpoint]) mkdirSync(each);
  writeFileSync(join(imageDir, IMAGE), '');
  const builds = [
    { name: 'migratefs', cli: CLI },
    ...(options.against === undefined ? [] : [{ name: 'against', cli: options.against }]),
  ];
  const starts = new Map<string, Start[]>(builds.map(({ name }) => [name, []]));
  for (let round = 0; round < options.rounds; round++)
    for (const { name, cli } of inTurn(builds, round))
      starts.get(name)!.push(await measureStart(cli, imageDir, mountpoint));
  const rows = ROWS.map(([title, key]) => {
    const values = builds.map(({ name }) => starts.get(name)!.map((start) => start[key]));
    return [
      title,
      ...values.map(
        (all) => `${fixed(median(all), 2)} (${fixed(Math.min(...all), 2)} to ${fixed(Math.max(...all), 2)})`,
      ),
      ...(values.length > 1 ? [`${fixed(median(values[0]!) / median(values[1]!), 2)}x`] : []),
    ];
  });
  const head = [
    'start of a daemon',
    ...builds.map(({ name }) => name),
    ...(builds.length > 1 ? ['ratio'] : []),
  ];
  console.log(`medians of ${options.rounds} starts (least to most)\n`);
  console.log(formatTable(head, rows));
};
