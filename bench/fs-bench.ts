import { closeSync, mkdirSync, mkdtempSync, openSync, rmSync, statSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';
import type { Teardown } from '../test/support/scratch.js';
import {
  available,
  type ContenderName,
  type ContenderOptions,
  type RunningContender,
  startContender,
} from './contender.js';
import { type FioFigures, measureFio } from './fio.js';
import { FS_ROWS, type FsRow } from './fs-rows.js';
import { fillImage } from './image.js';
import { cpuSeconds, residentBytes } from './process-figures.js';
import { median } from './statistics.js';
import { fixed, formatTable, passes, type Verdict, verdictCells } from './table.js';

export interface FsBenchOptions extends ContenderOptions {
  /** Measurements of each cell; the table shows their medians. */
  readonly rounds: number;
  /** Seconds of one measurement, at most. */
  readonly seconds: number;
  /** Only rows whose name contains this. */
  readonly only: string;
  /** Bytes of the image. */
  readonly size: number;
  /** Where images and mount points are made; on tmpfs, so that the page cache serves all contenders alike. */
  readonly dir: string;
  /** Files of the metadata row; 0 leaves it out. */
  readonly files: number;
  readonly contenders: readonly ContenderName[];
}

type Sample = FioFigures & { readonly cpu: number };

const IMAGE = 'image.raw';
const MB = 1e6;

const measure = async (row: FsRow, contender: RunningContender, options: FsBenchOptions): Promise<Sample> => {
  const before = contender.pid === null ? 0 : cpuSeconds(contender.pid);
  const result = await measureFio({
    ...row.job,
    file: join(contender.path, IMAGE),
    span: options.size,
    seconds: options.seconds,
  });
  const cpu = contender.pid === null ? Number.NaN : cpuSeconds(contender.pid) - before;
  return { ...result, cpu: cpu / (result.bytes / 1e9) };
};

/** Contenders take turns, and who begins changes, so that drift of the machine hits all of them. */
const inTurn = <T>(items: readonly T[], round: number): readonly T[] => [
  ...items.slice(round % items.length),
  ...items.slice(0, round % items.length),
];

const measureRow = async (
  row: FsRow,
  contenders: readonly RunningContender[],
  options: FsBenchOptions,
): Promise<Map<ContenderName, Sample>> => {
  const samples = new Map<ContenderName, Sample[]>();
  for (let round = 0; round < options.rounds; round++)
    for (const contender of inTurn(contenders, round)) {
      const list = samples.get(contender.name) ?? [];
      list.push(await measure(row, contender, options));
      samples.set(contender.name, list);
    }
  const middle = (list: readonly Sample[]): Sample => {
    const pick = (key: keyof Sample): number => median(list.map((sample) => sample[key]));
    return {
      bytes: pick('bytes'),
      seconds: pick('seconds'),
      bytesPerSecond: pick('bytesPerSecond'),
      iops: pick('iops'),
      p50: pick('p50'),
      p99: pick('p99'),
      cpu: pick('cpu'),
    };
  };
  return new Map([...samples].map(([name, list]) => [name, middle(list)]));
};

interface RowReport {
  readonly lines: readonly (readonly string[])[];
  readonly missed: number;
}

const reportRow = (row: FsRow, medians: ReadonlyMap<ContenderName, Sample>): RowReport => {
  const ours = medians.get('migratefs');
  let missed = 0;
  const lines = [...medians].map(([name, sample], index) => {
    const bar = row.bars[name];
    const verdict: Verdict = {
      ratio: ours ? ours[row.metric] / sample[row.metric] : Number.NaN,
      ...(bar === undefined ? {} : { bar }),
    };
    if (ours && !passes(verdict)) missed++;
    return [
      index === 0 ? row.name : '',
      name,
      fixed(sample.iops, 0),
      fixed(sample.bytesPerSecond / MB, 0),
      fixed(sample.p50, 1),
      fixed(sample.p99, 0),
      fixed(sample.cpu, 2),
      name === 'migratefs' || !ours ? '' : `${fixed(sample.p50 / ours.p50, 2)}x`,
      ...(name === 'migratefs' || !ours ? ['', '', ''] : verdictCells(verdict)),
    ];
  });
  return { lines, missed };
};

/** Creates, looks at and removes `files` files in a fresh directory; operations per second of each step. */
const metadataRates = (contender: RunningContender, files: number): readonly number[] => {
  const folder = join(contender.path, `metadata-${contender.name}`);
  mkdirSync(folder);
  const rate = (operation: (path: string) => void): number => {
    const start = performance.now();
    for (let file = 0; file < files; file++) operation(join(folder, `file-${file}`));
    return files / ((performance.now() - start) / 1000);
  };
  const rates = [
    rate((path) => closeSync(openSync(path, 'wx'))),
    rate((path) => statSync(path)),
    rate(unlinkSync),
  ];
  rmSync(folder, { recursive: true });
  return rates;
};

const metadataTable = (contenders: readonly RunningContender[], options: FsBenchOptions): string => {
  const steps = ['create', 'stat', 'unlink'];
  const samples = new Map(contenders.map(({ name }) => [name, steps.map((): number[] => [])]));
  for (let round = 0; round < options.rounds; round++)
    for (const contender of inTurn(contenders, round))
      metadataRates(contender, options.files).forEach((rate, step) => {
        samples.get(contender.name)?.[step]?.push(rate);
      });
  const lines = contenders.map(({ name }) => [
    name,
    ...(samples.get(name) ?? []).map((rates) => fixed(median(rates), 0)),
  ]);
  return formatTable([`metadata, ${options.files} files`, ...steps.map((step) => `${step}/s`)], lines);
};

/** `npm run bench -- fs`: the idle mount against its peers. Resolves to the number of bars missed. */
export const benchFs = async (options: FsBenchOptions, cleanup: Teardown): Promise<number> => {
  const base = mkdtempSync(join(options.dir, 'mfs-bench-'));
  cleanup.teardown(() => rmSync(base, { recursive: true, force: true }));
  const imageDir = join(base, 'images');
  mkdirSync(imageDir);
  await fillImage(join(imageDir, IMAGE), options.size);
  const contenders: RunningContender[] = [];
  for (const name of options.contenders) {
    if (!(await available(name, options))) {
      console.log(`${name}: not here, left out`);
      continue;
    }
    const mountpoint = join(base, name);
    mkdirSync(mountpoint);
    const contender = await startContender(name, imageDir, mountpoint, options);
    cleanup.teardown(() => contender.stop());
    contenders.push(contender);
  }
  const rows = FS_ROWS.filter((row) => row.name.includes(options.only));
  const lines: (readonly string[])[] = [];
  let missed = 0;
  for (const row of rows) {
    process.stderr.write(`${row.name} ...\n`);
    const report = reportRow(row, await measureRow(row, contenders, options));
    lines.push(...report.lines);
    missed += report.missed;
  }
  const head = [
    'row',
    'who',
    'IOPS',
    'MB/s',
    'p50 us',
    'p99 us',
    'daemon CPU s/GB',
    'its p50/ours',
    'ours/it',
    'bar',
    '',
  ];
  console.log(`medians of ${options.rounds} rounds in turn, image of ${options.size / 2 ** 20} MiB\n`);
  if (rows.length > 0) console.log(formatTable(head, lines));
  if (options.files > 0) console.log(`\n${metadataTable(contenders, options)}`);
  for (const { name, pid } of contenders)
    if (pid !== null) console.log(`${name}: ${fixed(residentBytes(pid) / MB, 0)} MB resident at the end`);
  console.log(`\n${missed} bars missed`);
  return missed;
};
