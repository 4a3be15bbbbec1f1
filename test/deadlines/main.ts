/** `npm run test:deadlines`: real daemons on a bed of shaped links keep their deadlines; docs/DEADLINES.md. */
import { mkdirSync } from 'node:fs';
import { Command, InvalidArgumentError, Option } from 'commander';
import { formatTable } from '../../bench/table.js';
import { withCleanup } from '../support/cleanup.js';
import { seedFromEnvironment } from '../support/random.js';
import { diskLimit } from './disk-limit.js';
import type { Experiment, Finding } from './experiment.js';
import { hotLinkGreedy, hotLinkStream } from './hot-link.js';
import { link } from './link.js';
import { sharedLink } from './shared-link.js';

const EXPERIMENTS: Readonly<Record<string, Experiment>> = {
  link,
  'shared-link': sharedLink,
  'disk-limit': diskLimit,
  'hot-link-greedy': hotLinkGreedy,
  'hot-link-stream': hotLinkStream,
};

interface Options {
  readonly only: readonly string[];
  readonly out?: string;
  readonly seed: number;
}

const say = (line: string): void => void process.stdout.write(`${line}\n`);

const positive = (text: string): number => {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1)
    throw new InvalidArgumentError('a whole number above 0 is needed');
  return value;
};

const verdict = ({ holds }: Finding): string => (holds === undefined ? '' : holds ? 'holds' : 'FAILS');

/** Resolves to the number of claims that do not hold. */
const runOne = async (name: string, { out, seed }: Options): Promise<number> => {
  say(`\n${name}`);
  const began = performance.now();
  const findings = await withCleanup((t) =>
    EXPERIMENTS[name]!({ t, seed, say: (line) => say(`  ${line}`), ...(out === undefined ? {} : { out }) }),
  );
  const rows = findings.map((each) => [each.what, each.measured, each.wanted ?? '', verdict(each)]);
  say(
    formatTable(
      [`${name}, ${Math.round((performance.now() - began) / 1000)} s`, 'measured', 'wanted', ''],
      rows,
    ),
  );
  return findings.filter(({ holds }) => holds === false).length;
};

const options = new Command('test:deadlines')
  .description('Experiments with real daemons on shaped links; exit status 1 when a claim does not hold.')
  .addOption(
    new Option('--only <name...>', 'which experiments')
      .choices(Object.keys(EXPERIMENTS))
      .default(Object.keys(EXPERIMENTS)),
  )
  .option('--out <folder>', 'writes data as CSV and charts as SVG')
  .option('--seed <n>', 'replays the random choices of a run', positive, seedFromEnvironment())
  .parse()
  .opts<Options>();

if (options.out !== undefined) mkdirSync(options.out, { recursive: true });
let failed = 0;
for (const name of options.only) failed += await runOne(name, options);
say(`\n${failed} claims fail; seed ${options.seed}`);
process.exitCode = failed > 0 ? 1 : 0;
