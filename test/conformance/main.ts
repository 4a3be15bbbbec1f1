/** `npm run test:posix`: the long suite, against the file system below and against models; docs/CONFORMANCE.md. */
import { Command, InvalidArgumentError, Option } from 'commander';
import { withCleanup } from '../support/cleanup.js';
import { seedFromEnvironment } from '../support/random.js';
import type { Teardown } from '../support/scratch.js';
import { TestDaemon, type Transport } from '../support/test-daemon.js';
import { SECTIONS } from './sections.js';

const positive = (text: string): number => {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1)
    throw new InvalidArgumentError('a whole number above 0 is needed');
  return value;
};

interface Options {
  readonly seed: number;
  readonly percent: number;
  readonly transport: readonly Transport[];
  readonly section: readonly string[];
  readonly only: readonly string[];
}

const say = (line: string): void => void process.stdout.write(`${line}\n`);

/** Resolves to the number of faults. */
const runAll = async (t: Teardown, { seed, percent, transport, section, only }: Options): Promise<number> => {
  const faults: string[] = [];
  say(`seed ${seed}: replay with --seed ${seed}`);
  for (const name of transport)
    for (const part of section) {
      // A daemon of its own for each: what one section breaks, another must not suffer from.
      const daemon = await TestDaemon.start(t, { transport: name });
      const prefix = `${name}, ${part}`;
      const context = { t, daemon, seed, percent, only, say: (line: string) => say(`${prefix}: ${line}`) };
      const found = await SECTIONS[part]!(context);
      faults.push(...found.map((fault) => `${prefix}: ${fault}`));
      try {
        await daemon.stop();
      } catch (error) {
        faults.push(`${prefix}: ${(error as Error).message}`);
        await daemon.kill();
      }
    }
  say(`\n${faults.length} faults; seed ${seed}`);
  for (const fault of faults) say(fault.split('\n', 1)[0]!);
  return faults.length;
};

const options = new Command('test:posix')
  .description(
    'Attacks the file system with random operations, trees, fio and stress-ng; exit status 1 on a fault.',
  )
  .option('--seed <n>', 'replays a run', positive, seedFromEnvironment())
  .option('--percent <n>', 'share of the full size: 10 for a quick look', positive, 100)
  .addOption(
    new Option('--transport <name...>', 'which transports')
      .choices(['kernel', 'fuse-native'])
      .default(['kernel', 'fuse-native']),
  )
  .addOption(
    new Option('--section <name...>', 'which parts')
      .choices(Object.keys(SECTIONS))
      .default(Object.keys(SECTIONS)),
  )
  .option('--only <text...>', 'only the steps whose names contain one of these texts', [])
  .parse()
  .opts<Options>();

const faults = await withCleanup((cleanup) => runAll(cleanup, options));
process.exitCode = faults > 0 ? 1 : 0;
