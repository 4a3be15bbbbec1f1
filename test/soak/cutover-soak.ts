/** `npm run test:soak -- --rounds 50 [--seed N]`: migrations under verifying load, back and forth between two daemons. */
import { Command, InvalidArgumentError } from 'commander';
import { residentBytes } from '../../bench/process-figures.js';
import { percentile } from '../../bench/statistics.js';
import { MiB } from '../../src/leaves/units.js';
import { withCleanup } from '../support/cleanup.js';
import { type Pair, startPair } from '../support/pair.js';
import { Random, seedFromEnvironment } from '../support/random.js';
import type { Teardown } from '../support/scratch.js';
import { type RoundReport, randomPlan, soakRound } from './cutover-round.js';

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

/** Odd rounds move a new image there, even rounds the same one back. Resolves to the number of rounds with an error. */
const soak = async (t: Teardown, rounds: number, seed: number): Promise<number> => {
  const pair = await startPair(t);
  const back: Pair = { source: pair.target, target: pair.source };
  const reports: RoundReport[] = [];
  for (let round = 0; round < rounds; round++) {
    // A round's own seed, so that it can be looked at alone.
    const random = new Random(seed + round);
    const again = round % 2 === 1;
    const plan = randomPlan(random, `vm-${round >> 1}.raw`, again);
    const report = await soakRound(t, again ? back : pair, random, plan);
    reports.push(report);
    say(line(round, report));
    for (const error of report.errors)
      say(
        `    ${error}\n    states ${report.states.join(' > ')}; ${JSON.stringify(plan)}\n    ${report.passes.join('; ')}`,
      );
    if (report.errors.length > 0) break;
  }
  const stalls = reports.map((report) => report.stall);
  const resident = [pair.source, pair.target].map(
    ({ daemon }) => `${(residentBytes(daemon.pid) / 1e6).toFixed(0)} MB`,
  );
  const failed = reports.filter((report) => report.errors.length > 0).length;
  say(
    `\n${reports.length} rounds, ${failed} with errors; seed ${seed}; cutover stall p50 ${percentile(stalls, 0.5).toFixed(1)} ms, ` +
      `max ${Math.max(...stalls).toFixed(1)} ms; daemons ${resident.join(' and ')} resident`,
  );
  await pair.source.daemon.stop();
  await pair.target.daemon.stop();
  return failed;
};

const options = new Command('cutover-soak')
  .description('Migrates images under verifying load again and again; exit status 1 on the first error.')
  .option('--rounds <n>', 'migrations', positive, 50)
  .option('--seed <n>', 'replays a run', positive, seedFromEnvironment())
  .parse()
  .opts<{ rounds: number; seed: number }>();

const failed = await withCleanup((cleanup) => soak(cleanup, options.rounds, options.seed));
process.exitCode = failed > 0 ? 1 : 0;
