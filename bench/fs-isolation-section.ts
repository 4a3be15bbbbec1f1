import { type ContenderName, IMAGE, OTHER_BYTES, OTHER_IMAGE, type RunningContender } from './contender.js';
import { measureBeside } from './contention.js';
import type { FioFigures, FioJob } from './fio.js';
import { type FsSection, type FsSetting, failureLines, labelled } from './fs-section.js';
import { loadAverage, watchOthers } from './machine-load.js';
import { measureRounds } from './rounds.js';
import { median } from './statistics.js';
import { fixed, formatTable, passes, type Verdict, verdictCells } from './table.js';

const KIB = 1024;
const MIB = 1024 * KIB;
const MB = 1e6;
const P99_RATIO_MAX = 3;
const WRITERS = 8;
const PAUSE_MICROS = 500;
/** A fuller comparison would double the time: the bare folder shows the scheduler's part, one peer what C does. */
const COMPARED: readonly ContenderName[] = ['migratefs', 'bare', 'passthrough_hp'];

type Access = Pick<FioJob, 'rw' | 'readShare' | 'block' | 'direct'>;

const WRITER_KINDS: readonly { readonly name: string; readonly access: Access }[] = [
  { name: '4k random direct', access: { rw: 'randwrite', block: 4 * KIB, direct: true } },
  { name: '1M buffered', access: { rw: 'write', block: MIB, direct: false } },
];

const READERS = (
  [
    { name: 'O_RDONLY', access: { rw: 'randread' } },
    { name: 'O_RDWR', access: { rw: 'randrw', readShare: 100 } },
  ] as const
).flatMap(({ name, access }) => [
  { name: `4k reader (${name}) unpaced`, access, extra: {} },
  { name: `4k reader (${name}) paced`, access, extra: { thinktime: PAUSE_MICROS } },
]);

/** Who serves the reader and who the writers. */
interface Place {
  readonly name: string;
  readonly reader: RunningContender;
  readonly writers: RunningContender;
}

/** A third arrangement separates the daemon from the CPUs: its reader meets writers that use none of it. */
const placesOf = (contenders: readonly RunningContender[]): readonly Place[] => {
  const compared = contenders.filter(({ name }) => COMPARED.includes(name));
  const ours = compared.find(({ name }) => name === 'migratefs');
  const bare = compared.find(({ name }) => name === 'bare');
  return [
    ...compared.map((contender) => ({ name: contender.name, reader: contender, writers: contender })),
    ...(ours && bare ? [{ name: 'migratefs, writers bare', reader: ours, writers: bare }] : []),
  ];
};

interface Sample {
  readonly alone: FioFigures;
  /** In the order of WRITER_KINDS. */
  readonly beside: readonly { readonly reader: FioFigures; readonly writers: FioFigures }[];
  readonly others: number;
  readonly loadAverage: number;
}

const measure = async (
  reader: (typeof READERS)[number],
  place: Place,
  { pids, options, signal }: FsSetting,
): Promise<Sample> => {
  const common = { engine: 'psync', depth: 1, seconds: options.seconds, loop: true } as const;
  const job: FioJob = {
    ...common,
    ...reader.access,
    block: 4 * KIB,
    direct: true,
    jobs: 1,
    file: place.reader.image(OTHER_IMAGE, true),
    span: OTHER_BYTES,
    extra: reader.extra,
  };
  const others = watchOthers(pids);
  const { measured: alone } = await measureBeside(job, null, signal);
  const beside: Sample['beside'][number][] = [];
  for (const { access } of WRITER_KINDS) {
    const writers: FioJob = {
      ...common,
      ...access,
      jobs: WRITERS,
      file: place.writers.image(IMAGE, access.direct),
      span: options.size,
    };
    const result = await measureBeside(job, writers, signal);
    beside.push({ reader: result.measured, writers: result.others! });
  }
  return { alone, beside, others: others(), loadAverage: loadAverage() };
};

const HEAD = [
  'isolation',
  'where',
  `${WRITERS} writers`,
  'they write MB/s',
  'IOPS alone',
  'beside',
  'p50 us alone',
  'beside',
  'p99 us alone',
  'beside',
  'load',
  'others',
  'p99 ratio',
  'bar',
  '',
];

interface RowReport {
  readonly lines: readonly (readonly string[])[];
  readonly missed: number;
}

const reportRow = (name: string, samples: ReadonlyMap<string, readonly Sample[]>): RowReport => {
  let missed = 0;
  const lines = [...samples].flatMap(([who, list], place) =>
    WRITER_KINDS.map((writers, kind) => {
      const middle = (pick: (sample: Sample) => number): number => median(list.map(pick));
      const alone = (key: 'iops' | 'p50' | 'p99'): number => middle((sample) => sample.alone[key]);
      const beside = (key: 'iops' | 'p50' | 'p99'): number =>
        middle((sample) => sample.beside[kind]!.reader[key]);
      const verdict: Verdict = {
        ratio: beside('p99') / alone('p99'),
        ...(who === 'migratefs' ? { bar: P99_RATIO_MAX, sense: 'at-most' as const } : {}),
      };
      if (!passes(verdict)) missed++;
      return [
        place === 0 && kind === 0 ? name : '',
        kind === 0 ? who : '',
        writers.name,
        fixed(middle((sample) => sample.beside[kind]!.writers.bytesPerSecond) / MB, 0),
        fixed(alone('iops'), 0),
        fixed(beside('iops'), 0),
        fixed(alone('p50'), 1),
        fixed(beside('p50'), 1),
        fixed(alone('p99'), 1),
        fixed(beside('p99'), 1),
        fixed(
          middle((sample) => sample.loadAverage),
          1,
        ),
        fixed(
          middle((sample) => sample.others),
          2,
        ),
        ...verdictCells(verdict),
      ];
    }),
  );
  return { lines, missed };
};

/** What a reader of one image notices of eight writers that saturate another. */
export const fsIsolationSection = async (setting: FsSetting): Promise<FsSection> => {
  const places = placesOf(setting.contenders);
  const lines: (readonly string[])[] = [];
  const failures: string[] = [];
  const samples: object[] = [];
  let missed = 0;
  for (const reader of READERS) {
    const row = `isolation ${reader.name}`;
    if (!row.includes(setting.options.only)) continue;
    process.stderr.write(`${row} ...\n`);
    const result = await measureRounds(
      places,
      setting.options.rounds,
      (place) => measure(reader, place, setting),
      setting.signal,
    );
    const report = reportRow(reader.name, result.samples);
    lines.push(...report.lines);
    missed += report.missed;
    failures.push(...failureLines(row, result.failures));
    samples.push(...labelled(row, result.samples));
  }
  if (lines.length === 0) return { text: '', missed, failures, samples };
  const text = [
    formatTable(HEAD, lines),
    `The reader: psync, direct, queue depth 1, an image of its own; paced: it pauses ${PAUSE_MICROS} us after each read.`,
    'bare: the same without any mount, so what the scheduler does to a reader on busy CPUs.',
    '"writers bare": the reader uses the mount and the writers do not, so busy CPUs without a busy daemon.',
  ].join('\n');
  return { text, missed, failures, samples };
};
