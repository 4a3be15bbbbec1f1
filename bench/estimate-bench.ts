/** How well the end of a migration is predicted: real daemons, guests of several kinds, the end foretold at half. */
import { mkdtempSync } from 'node:fs';
import { join } from 'node:path';
import type { Cleanup } from '../test/support/cleanup.js';
import { makeSparseImage } from '../test/support/files.js';
import { type FioOptions, runFio } from '../test/support/fio.js';
import { type Pair, startPair } from '../test/support/pair.js';
import { atHalf, errorOf, type Predicted, predict, withinBand } from '../test/support/predictions.js';
import { removeTree } from '../test/support/scratch.js';
import { median } from './statistics.js';
import { fixed, formatTable } from './table.js';

export interface EstimateBenchOptions {
  readonly rounds: number;
  /** Bytes of the image. */
  readonly size: number;
  /** Bytes per second. */
  readonly net: number;
  /** Where images are made. */
  readonly dir: string;
  /** Only scenarios whose name contains this. */
  readonly only: string;
}

interface Scenario {
  readonly name: string;
  readonly steady: boolean;
  /** What the guest writes, as a part of the network rate; 0: nothing. */
  readonly rate: number;
  readonly fio: FioOptions;
  /** From and until when it writes, as parts of the time that the bare copy takes. */
  readonly from?: number;
  readonly until?: number;
}

const IMAGE = 'image.raw';
const GUEST_SECONDS_MAX = 600;
const BARS = { steady: 0.05, changing: 0.15 };

const random: FioOptions = { rw: 'randwrite', norandommap: true };
const ordered: FioOptions = { rw: 'write' };

const uniform = (bs: string, rate: number): Scenario => ({
  name: `uniform ${bs} ${rate}`,
  steady: true,
  rate,
  fio: { ...random, bs },
});

const hot = (where: string, offset: string, rate: number): Scenario => ({
  name: `hot ${where} 4k ${rate}`,
  steady: true,
  rate,
  fio: { ...random, bs: '4k', offset, size: '10%' },
});

const SCENARIOS: readonly Scenario[] = [
  { name: 'no writes', steady: true, rate: 0, fio: {} },
  uniform('64k', 0.2),
  uniform('64k', 0.5),
  uniform('64k', 0.9),
  uniform('64k', 1.5),
  uniform('4k', 0.05),
  uniform('4k', 0.2),
  hot('early', '0', 0.2),
  hot('late', '90%', 0.2),
  { name: 'sequential 64k 0.5', steady: true, rate: 0.5, fio: { ...ordered, bs: '64k' } },
  { ...uniform('64k', 0.5), name: 'starts at a third', steady: false, from: 1 / 3 },
  { ...uniform('64k', 0.5), name: 'stops at a third', steady: false, until: 1 / 3 },
];

export const benchEstimates = async (options: EstimateBenchOptions, cleanup: Cleanup): Promise<void> => {
  const rows: string[][] = [];
  for (const scenario of SCENARIOS.filter(({ name }) => name.includes(options.only))) {
    const runs: Predicted[] = [];
    for (let round = 0; round < options.rounds; round++) {
      runs.push(await observe(scenario, options, cleanup));
      process.stderr.write('.');
    }
    rows.push(row(scenario, runs));
  }
  process.stderr.write('\n');
  console.log(
    formatTable(['scenario', 'real s', 'predicted s', 'error %', 'worst %', 'in band %', 'bar'], rows),
  );
};

const row = ({ name, steady }: Scenario, runs: readonly Predicted[]): string[] => {
  const errors = runs.map((run) => errorOf(run, atHalf(run)));
  const error = median(errors.map(Math.abs));
  const bar = steady ? BARS.steady : BARS.changing;
  return [
    name,
    fixed(median(runs.map(({ seconds }) => seconds)), 1),
    fixed(median(runs.map((run) => atHalf(run).at + atHalf(run).expected)), 1),
    fixed(median(errors) * 100, 1),
    fixed(errors.toSorted((a, b) => Math.abs(a) - Math.abs(b)).at(-1)! * 100, 1),
    fixed(median(runs.map(withinBand)) * 100, 0),
    `<= ${bar * 100} ${error <= bar ? 'pass' : 'MISS'}`,
  ];
};

/** New daemons each time: nothing is left in caches, records or rates. */
const observe = async (
  scenario: Scenario,
  { size, net, dir }: EstimateBenchOptions,
  cleanup: Cleanup,
): Promise<Predicted> => {
  const folder = mkdtempSync(join(dir, 'migratefs-estimates-'));
  cleanup.teardown(() => removeTree(folder));
  const side = (name: string) => ({
    imageDir: join(folder, name, 'images'),
    mountpoint: join(folder, name, 'mount'),
  });
  const pair = await startPair(cleanup, { source: side('source'), target: side('target') });
  makeSparseImage(pair.source.daemon.below(IMAGE), size, [{ offset: 0, length: size }]);
  const stop = new AbortController();
  const guest = startGuest(scenario, pair, size, net, stop.signal);
  try {
    return await predict(pair, IMAGE, net, guest.begun);
  } finally {
    stop.abort();
    await guest.ended();
    await cleanup.run();
  }
};

const startGuest = (
  { rate, fio, from = 0, until }: Scenario,
  { source }: Pair,
  size: number,
  net: number,
  signal: AbortSignal,
) => {
  const copySeconds = size / net;
  let writing: Promise<unknown> = Promise.resolve();
  const write = (): void => {
    writing = runFio(
      {
        filename: source.daemon.at(IMAGE),
        size,
        rate: Math.round(rate * net),
        time_based: true,
        runtime: until === undefined ? GUEST_SECONDS_MAX : Math.round(until * copySeconds),
        fallocate: 'none',
        thread: true,
        ...fio,
      },
      signal,
    ).catch((error: Error) => error);
  };
  let timer: NodeJS.Timeout | undefined;
  return {
    begun: (): void => {
      if (rate > 0) timer = setTimeout(write, from * copySeconds * 1000);
    },
    ended: async (): Promise<void> => {
      clearTimeout(timer);
      await writing;
    },
  };
};
