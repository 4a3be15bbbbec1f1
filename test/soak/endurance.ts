/**
 * `npm run test:endurance -- [--minutes 10] [--seed N] [--json FILE]`: mixed load on one mount, and whether its daemon
 * holds more memory, descriptors or threads at the end than at the beginning.
 */
import { readdirSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { Command, InvalidArgumentError } from 'commander';
import { withCleanup } from '../support/cleanup.js';
import { Random, seedFromEnvironment } from '../support/random.js';
import type { Teardown } from '../support/scratch.js';
import { TestDaemon } from '../support/test-daemon.js';
import { descriptorsReturn } from './descriptors-return.js';
import { startLoad } from './endurance-load.js';
import { type ProcessSample, sampleProcess } from './process-sample.js';
import { isFlat, SAMPLES_MIN, type Tolerance, type Trend, toleratedGrowth, trendOf } from './trend.js';

const MB = 1e6;
const IDLE_RESIDENT_MAX = 150 * MB;
const SAMPLE_SECONDS = 5;
/** A short run is sampled more often. */
const SAMPLES_AT_LEAST = 60;
/** Caches, pools and heaps fill; nothing is judged meanwhile. */
const WARM_UP_SHARE = 0.25;

interface Figure {
  readonly key: keyof ProcessSample;
  readonly unit: number;
  readonly name: string;
  readonly tolerance: Tolerance;
}

/** Garbage: the seven heaps of a daemon are collected minutes apart, and a level of 131 to 161 MB was seen without a leak. */
const GARBAGE_BYTES = 25 * MB;

const FIGURES: readonly Figure[] = [
  { key: 'resident', unit: MB, name: 'resident MB', tolerance: { absolute: GARBAGE_BYTES, share: 0.05 } },
  { key: 'anonymous', unit: MB, name: 'anonymous MB', tolerance: { absolute: GARBAGE_BYTES, share: 0.05 } },
  // Address space that garbage leaves behind is given back later than its pages.
  { key: 'data', unit: MB, name: 'data segment MB', tolerance: { absolute: 2 * GARBAGE_BYTES, share: 0 } },
  // The load has up to 40 files open, and up to 1,100 files; that all of them go is checked at the end.
  { key: 'opened', unit: 1, name: 'descriptors opened', tolerance: { absolute: 40, share: 0 } },
  { key: 'nodes', unit: 1, name: 'descriptors of inodes', tolerance: { absolute: 1100, share: 0 } },
  // A worker that a slow disk holds up has another in its place meanwhile.
  { key: 'threads', unit: 1, name: 'threads', tolerance: { absolute: 2, share: 0 } },
];

interface TimedSample extends ProcessSample {
  /** Seconds since the load began. */
  readonly at: number;
}

interface FigureVerdict {
  readonly name: string;
  readonly flat: boolean;
  readonly trend: Trend;
  readonly tolerated: number;
}

interface Report {
  readonly seed: number;
  readonly minutes: number;
  readonly idle: ProcessSample;
  readonly samples: readonly TimedSample[];
  readonly counts: Readonly<Record<string, number>>;
  readonly figures: readonly FigureVerdict[];
  /** After the load, with no inode known to the kernel. */
  readonly after: ProcessSample;
  /** What is wrong; empty: the run has passed. */
  readonly faults: readonly string[];
}

const say = (text: string): void => void process.stdout.write(`${text}\n`);

const sampleLine = ({ at, resident, anonymous, data, opened, nodes, threads }: TimedSample): string =>
  `${at.toFixed(0).padStart(5)} s  resident ${(resident / MB).toFixed(1)}, anonymous ${(anonymous / MB).toFixed(1)}, ` +
  `data ${(data / MB).toFixed(1)} MB; descriptors ${opened} + ${nodes} of inodes; ${threads} threads`;

/** Samples until `seconds` are over or `stop` aborts. */
const sampleFor = async (pid: number, seconds: number, stop: AbortSignal): Promise<TimedSample[]> => {
  const every = Math.min(SAMPLE_SECONDS, seconds / SAMPLES_AT_LEAST);
  const began = performance.now();
  const samples: TimedSample[] = [];
  for (let next = every; next <= seconds && !stop.aborted; next += every) {
    const wait = began + next * 1000 - performance.now();
    await sleep(Math.max(0, wait), undefined, { signal: stop }).catch(() => undefined);
    const sample = { at: (performance.now() - began) / 1000, ...sampleProcess(pid) };
    samples.push(sample);
    if (samples.length % 12 === 0) say(sampleLine(sample));
  }
  return samples;
};

const judge = (samples: readonly TimedSample[]): FigureVerdict[] =>
  FIGURES.map(({ key, name, tolerance }) => {
    const trend = trendOf(samples.map((sample) => ({ at: sample.at, value: sample[key] })));
    return { name, trend, flat: isFlat(trend, tolerance), tolerated: toleratedGrowth(trend, tolerance) };
  });

const verdictLine = ({ name, flat, trend, tolerated }: FigureVerdict): string => {
  const { unit } = FIGURES.find((figure) => figure.name === name)!;
  const shown = (value: number): string => (value / unit).toFixed(1);
  return (
    `${flat ? 'flat ' : 'GROWS'}  ${name.padEnd(22)} level ${shown(trend.level)}, growth in ${trend.seconds.toFixed(0)} s: ` +
    `by slope ${shown(trend.slopeGrowth)}, by quarters ${shown(trend.stepGrowth)}, tolerated ${shown(tolerated)}`
  );
};

const endure = async (t: Teardown, minutes: number, seed: number): Promise<Report> => {
  const daemon = await TestDaemon.start(t);
  const idle = sampleProcess(daemon.pid);
  const faults: string[] = [];
  if (idle.resident > IDLE_RESIDENT_MAX)
    faults.push(`idle daemon: ${(idle.resident / MB).toFixed(1)} MB resident`);
  const stop = new AbortController();
  t.teardown(() => stop.abort());
  const load = startLoad(daemon.mountpoint, new Random(seed), stop);
  const samples = await sampleFor(daemon.pid, minutes * 60, stop.signal);
  stop.abort();
  await load.ended.catch((error: Error) => faults.push(error.message));
  const judged = samples.slice(Math.floor(samples.length * WARM_UP_SHARE));
  const figures = judged.length < SAMPLES_MIN ? [] : judge(judged);
  if (figures.length === 0) faults.push(`${judged.length} samples after the warm-up: not judged`);
  for (const { name, flat } of figures) if (!flat) faults.push(`${name}: not flat`);
  const left = readdirSync(daemon.imageDir);
  if (left.length > 0) faults.push(`the load has left ${left.join(', ')}`);
  const after = await descriptorsReturn(daemon, idle);
  if (after.opened !== idle.opened || after.nodes !== idle.nodes)
    faults.push(
      `descriptors after the load: ${after.opened} + ${after.nodes} of inodes, before: ${idle.opened} + ${idle.nodes}`,
    );
  await daemon.stop();
  return { seed, minutes, idle, samples, counts: Object.fromEntries(load.counts), figures, after, faults };
};

const positive = (text: string): number => {
  const value = Number(text);
  if (!(value > 0)) throw new InvalidArgumentError('a number above 0 is needed');
  return value;
};

const options = new Command('endurance')
  .description('Puts mixed load on a mount; exit status 1 when something grows, or answers wrongly.')
  .option('--minutes <n>', 'how long', positive, 10)
  .option('--seed <n>', 'replays the choices of a run', positive, seedFromEnvironment())
  .option('--json <file>', 'writes every sample and the verdict')
  .parse()
  .opts<{ minutes: number; seed: number; json?: string }>();

const report = await withCleanup((cleanup) => endure(cleanup, options.minutes, options.seed));
if (options.json !== undefined) writeFileSync(options.json, `${JSON.stringify(report, null, 1)}\n`);
say(
  `\nidle ${(report.idle.resident / MB).toFixed(1)} MB resident; seed ${report.seed}; ${JSON.stringify(report.counts)}`,
);
for (const verdict of report.figures) say(verdictLine(verdict));
for (const fault of report.faults) say(`FAULT  ${fault}`);
process.exitCode = report.faults.length > 0 ? 1 : 0;
