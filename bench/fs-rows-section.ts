import { type ContenderName, IMAGE, type RunningContender } from './contender.js';
import { type FioFigures, measureFio } from './fio.js';
import { FS_ROWS, type FsRow } from './fs-rows.js';
import { type FsSection, type FsSetting, failureLines, labelled } from './fs-section.js';
import { loadAverage, watchOthers } from './machine-load.js';
import { cpuSeconds } from './process-figures.js';
import { measureRounds } from './rounds.js';
import { median } from './statistics.js';
import { fixed, formatTable, passes, type Verdict, verdictCells } from './table.js';

const MB = 1e6;
const GB = 1e9;

interface Sample extends FioFigures {
  /** CPU seconds per GB: of the serving process, and of fio's own threads. */
  readonly daemonCpuPerGb: number;
  readonly callerCpuPerGb: number;
  /** CPUs busy with something else. */
  readonly others: number;
  readonly loadAverage: number;
}

type Medians = Readonly<Record<Exclude<keyof Sample, 'bytes' | 'seconds' | 'callerCpu'>, number>>;

const serving = (pid: number) => (): number => {
  try {
    return cpuSeconds(pid);
  } catch (cause) {
    throw new Error('the serving process has ended', { cause });
  }
};

const measure = async (
  row: FsRow,
  contender: RunningContender,
  { pids, options, signal }: FsSetting,
): Promise<Sample> => {
  const { pid } = contender;
  const others = watchOthers(pids);
  const served = pid === null ? () => 0 : serving(pid);
  const before = served();
  const figures = await measureFio(
    {
      ...row.job,
      file: contender.image(IMAGE, row.job.direct),
      span: options.size,
      seconds: options.seconds,
    },
    signal,
  );
  const gigabytes = figures.bytes / GB;
  return {
    ...figures,
    daemonCpuPerGb: (served() - before) / gigabytes,
    callerCpuPerGb: figures.callerCpu / gigabytes,
    others: others(),
    loadAverage: loadAverage(),
  };
};

const mediansOf = (list: readonly Sample[]): Medians => {
  const pick = (key: keyof Medians): number => median(list.map((sample) => sample[key]));
  return {
    bytesPerSecond: pick('bytesPerSecond'),
    iops: pick('iops'),
    p50: pick('p50'),
    p99: pick('p99'),
    daemonCpuPerGb: pick('daemonCpuPerGb'),
    callerCpuPerGb: pick('callerCpuPerGb'),
    others: pick('others'),
    loadAverage: pick('loadAverage'),
  };
};

const HEAD = [
  'row',
  'who',
  'IOPS',
  'MB/s',
  'p50 us',
  'p99 us',
  'load',
  'others',
  'its p50/ours',
  'ours/it',
  'bar',
  '',
];

interface RowReport {
  readonly lines: readonly (readonly string[])[];
  readonly missed: number;
}

const reportRow = (row: FsRow, medians: ReadonlyMap<string, Medians>): RowReport => {
  const ours = medians.get('migratefs');
  let missed = 0;
  const lines = [...medians].map(([name, sample], index) => {
    const bar = row.bars[name as ContenderName];
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
      fixed(sample.loadAverage, 1),
      fixed(sample.others, 2),
      name === 'migratefs' || !ours ? '' : `${fixed(sample.p50 / ours.p50, 2)}x`,
      ...(name === 'migratefs' || !ours ? ['', '', ''] : verdictCells(verdict)),
    ];
  });
  return { lines, missed };
};

const cpuCell = (sample: Medians | undefined): string => {
  if (!sample) return '-';
  const { daemonCpuPerGb, callerCpuPerGb } = sample;
  return `${fixed(daemonCpuPerGb + callerCpuPerGb, 2)} (${fixed(daemonCpuPerGb, 2)} + ${fixed(callerCpuPerGb, 2)})`;
};

/** Rates and latencies of reads and writes by everyone, and the CPU time they cost. */
export const fsRowsSection = async (setting: FsSetting): Promise<FsSection> => {
  const { contenders, options } = setting;
  const lines: (readonly string[])[] = [];
  const cpuLines: (readonly string[])[] = [];
  const failures: string[] = [];
  const samples: object[] = [];
  let missed = 0;
  for (const row of FS_ROWS.filter(({ name }) => name.includes(options.only))) {
    process.stderr.write(`${row.name} ...\n`);
    const result = await measureRounds(
      contenders,
      options.rounds,
      (contender) => measure(row, contender, setting),
      setting.signal,
    );
    const medians = new Map([...result.samples].map(([who, list]) => [who, mediansOf(list)]));
    const report = reportRow(row, medians);
    lines.push(...report.lines);
    missed += report.missed;
    cpuLines.push([row.name, ...contenders.map(({ name }) => cpuCell(medians.get(name)))]);
    failures.push(...failureLines(row.name, result.failures));
    samples.push(...labelled(row.name, result.samples));
  }
  if (lines.length === 0) return { text: '', missed, failures, samples };
  const text = [
    formatTable(HEAD, lines),
    'O_RDONLY: the image is opened for reading only, so the kernel may answer reads by itself.',
    'O_RDWR: it is opened for reading and writing, as the disk of a running VM is; each read reaches the daemon.',
    'randrw: rates of both together, latency of the reads.',
    'load: load average over one minute; others: CPUs busy with something that is not part of this measurement.',
    '',
    'CPU seconds per GB: sum (serving process + the threads that read or write, the kernel on their behalf included)',
    formatTable(['row', ...contenders.map(({ name }) => name)], cpuLines),
  ].join('\n');
  return { text, missed, failures, samples };
};
