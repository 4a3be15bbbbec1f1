/**
 * `npm run test:soak -- --rounds 50 [--seed N]`: migrations under verifying load, back and forth between two daemons,
 * whose memory is flat and which hold as many descriptors at the end as after the first migration of each.
 */
import { Command, InvalidArgumentError } from 'commander';
import { percentile } from '../../bench/statistics.js';
import { MiB } from '../../src/leaves/units.js';
import { withCleanup } from '../support/cleanup.js';
import { type Pair, startPair } from '../support/pair.js';
import { Random, seedFromEnvironment } from '../support/random.js';
import type { Teardown } from '../support/scratch.js';
import type { TestDaemon } from '../support/test-daemon.js';
import { type RoundReport, randomPlan, soakRound } from './cutover-round.js';
import { descriptorsReturn } from './descriptors-return.js';
import { type ProcessSample, sampleProcess } from './process-sample.js';
import { isFlat, SAMPLES_MIN, trendOf } from './trend.js';

const positive = (text: string): number => {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1)
    throw new InvalidArgumentError('a whole number above 0 is needed');
  return value;
};

const say = (text: string): void => void process.stdout.write(`${text}\n`);

const line = (round: number, report: RoundReport): string =>
  [
    `round ${String(round + 1).padStart(3)}`,
    report.errors.length === 0 ? 'ok  ' : 'FAIL',
    `${report.passes.length} fio passes, ${(report.bytesWritten / MiB).toFixed(0)} MiB`,
    `${report.stampedWrites} stamped writes`,
    `resent ${(report.bytesResent / MiB).toFixed(0)}, mirrored ${(report.bytesMirrored / MiB).toFixed(0)} MiB`,
    `stall ${report.stall.toFixed(1)} ms`,
    `longest write ${report.longestWrite.toFixed(0)} ms`,
  ].join(' | ');

const MB = 1e6;
/** Pools fill and heaps grow; memory is not judged meanwhile. */
const WARM_UP_ROUNDS = 6;
/** Garbage that is not collected yet: more right after being the source, which is every second round. */
const TOLERANCE = { absolute: 25 * MB, share: 0 };

const memoryText = (samples: readonly ProcessSample[]): string =>
  samples.map(({ resident }) => `${(resident / MB).toFixed(0)} MB`).join(' and ');

/** How the resident memory of a daemon, round by round, has grown; empty: it has not, or there were too few rounds. */
const memoryGrowth = (rounds: readonly ProcessSample[]): string => {
  const judged = rounds.slice(WARM_UP_ROUNDS).map(({ resident }, at) => ({ at, value: resident }));
  if (judged.length < SAMPLES_MIN) return '';
  const trend = trendOf(judged);
  return isFlat(trend, TOLERANCE)
    ? ''
    : `memory grows: by slope ${(trend.slopeGrowth / MB).toFixed(1)}, by quarters ${(trend.stepGrowth / MB).toFixed(1)} MB in ${judged.length} rounds`;
};

/** The descriptors that a daemon without inodes holds more than before; empty: none. */
const descriptorsKept = async (daemon: TestDaemon, before: ProcessSample): Promise<string> => {
  const { opened, nodes } = await descriptorsReturn(daemon, before);
  return opened > before.opened || nodes > before.nodes
    ? `descriptors: ${opened} + ${nodes} of inodes, before: ${before.opened} + ${before.nodes}`
    : '';
};

/** What the daemons hold more than after the first rounds. */
const keptBy = async (
  daemons: readonly TestDaemon[],
  memory: readonly (readonly ProcessSample[])[],
): Promise<string[]> => {
  const texts = await Promise.all(
    daemons.map(async (daemon, i) => {
      const samples = memory.map((round) => round[i]!);
      // Each has been a source and a target by then; its names are forgotten at the end.
      const before = { ...samples[Math.min(1, samples.length - 1)]!, nodes: 0 };
      return [memoryGrowth(samples), await descriptorsKept(daemon, before)];
    }),
  );
  return texts.flat().filter((text) => text !== '');
};

/** Odd rounds move a new image there, even rounds the same one back. Resolves to the number of errors. */
const soak = async (t: Teardown, rounds: number, seed: number): Promise<number> => {
  const pair = await startPair(t);
  const back: Pair = { source: pair.target, target: pair.source };
  const reports: RoundReport[] = [];
  const daemons = [pair.source.daemon, pair.target.daemon];
  const memory: ProcessSample[][] = [];
  for (let round = 0; round < rounds; round++) {
    // A round's own seed, so that it can be looked at alone.
    const random = new Random(seed + round);
    const again = round % 2 === 1;
    const plan = randomPlan(random, `vm-${round >> 1}.raw`, again);
    const report = await soakRound(t, again ? back : pair, random, plan);
    reports.push(report);
    const samples = daemons.map(({ pid }) => sampleProcess(pid));
    memory.push(samples);
    say(`${line(round, report)} | ${memoryText(samples)}`);
    for (const error of report.errors)
      say(
        `    ${error}\n    states ${report.states.join(' > ')}; ${JSON.stringify(plan)}\n    ${report.passes.join('; ')}`,
      );
    if (report.errors.length > 0) break;
  }
  const stalls = reports.map((report) => report.stall);
  const failed = reports.filter((report) => report.errors.length > 0).length;
  const kept = failed > 0 ? [] : await keptBy(daemons, memory);
  say(
    `\n${reports.length} rounds, ${failed} with errors; seed ${seed}; cutover stall p50 ${percentile(stalls, 0.5).toFixed(1)} ms, ` +
      `max ${Math.max(...stalls).toFixed(1)} ms; daemons ${memoryText(memory.at(-1)!)} resident`,
  );
  for (const text of kept) say(`FAIL ${text}`);
  await pair.source.daemon.stop();
  await pair.target.daemon.stop();
  return failed + kept.length;
};

const options = new Command('cutover-soak')
  .description('Migrates images under verifying load again and again; exit status 1 on the first error.')
  .option('--rounds <n>', 'migrations', positive, 50)
  .option('--seed <n>', 'replays a run', positive, seedFromEnvironment())
  .parse()
  .opts<{ rounds: number; seed: number }>();

const failed = await withCleanup((cleanup) => soak(cleanup, options.rounds, options.seed));
process.exitCode = failed > 0 ? 1 : 0;
