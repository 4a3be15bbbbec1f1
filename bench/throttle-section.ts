/** What other images, and readers of the image itself, notice of an image that is throttled to a crawl. */
import type { FioFigures, FioJob } from './fio.js';
import { measureFio } from './fio.js';
import { fillImage } from './image.js';
import { IMAGE, type Line, type Setting, whileMigrating } from './migrate-setting.js';
import { inTurn } from './rounds.js';
import { median } from './statistics.js';
import { fixed } from './table.js';

const KIB = 1024;
const MIB = 1024 * KIB;
const OTHER = 'other.raw';
const OTHER_BYTES = 256 * MIB;
const BAR = 0.8;
/** Bytes per second: one 4 KiB write of the guest a second. */
const CRAWL = 4000;
/** So slow that the copying takes nothing worth measuring. */
const NET_CRAWL = 1_000_000;
const WRITERS = 8;

type Access = Pick<FioJob, 'rw' | 'block' | 'jobs'>;

const ROWS: readonly { readonly what: string; readonly image: string; readonly access: Access }[] = [
  ...(['randread', 'randwrite'] as const).flatMap((rw) =>
    [1, 8].map((jobs) => ({
      what: `another image, 4k ${rw}, ${jobs === 1 ? 'QD1' : `${jobs} jobs`}`,
      image: OTHER,
      access: { rw, block: 4 * KIB, jobs },
    })),
  ),
  ...(['read', 'write'] as const).map((rw) => ({
    what: `another image, 1M sequential ${rw}`,
    image: OTHER,
    access: { rw, block: MIB, jobs: 1 },
  })),
  ...[1, 8].map((jobs) => ({
    what: `the throttled image, 4k randread, ${jobs === 1 ? 'QD1' : `${jobs} jobs`}`,
    image: IMAGE,
    access: { rw: 'randread' as const, block: 4 * KIB, jobs },
  })),
  {
    what: 'the throttled image, 1M sequential read',
    image: IMAGE,
    access: { rw: 'read', block: MIB, jobs: 1 },
  },
];

/** Who hammers the throttled image: what is held is a page each, or as much as a guest with deep queues has. */
const HAMMERS: readonly {
  readonly what: string;
  readonly job: Pick<FioJob, 'block' | 'engine' | 'depth'>;
}[] = [
  { what: `${WRITERS} writers of 64k`, job: { block: 64 * KIB, engine: 'psync', depth: 1 } },
  { what: `${WRITERS} writers of 1M, queue depth 32`, job: { block: MIB, engine: 'libaio', depth: 32 } },
];

/** Runs `work` while one image migrates, throttled to a crawl, and eight writers do what they can to it. */
const whileThrottled = async <T>(
  setting: Setting,
  hammer: (typeof HAMMERS)[number],
  work: () => Promise<T>,
): Promise<T> => {
  const { pair, options } = setting;
  const stop = new AbortController();
  let writers: Promise<unknown> | undefined;
  try {
    return await whileMigrating(setting, { netLimit: NET_CRAWL, diskLimit: CRAWL }, async (migration) => {
      writers = measureFio(
        {
          file: pair.source.daemon.at(IMAGE),
          rw: 'randwrite',
          ...hammer.job,
          jobs: WRITERS,
          span: options.size,
          direct: true,
          seconds: 600,
          loop: true,
        },
        stop.signal,
      ).catch(() => undefined);
      // What the limit lets through at once is through, and the rest is held.
      await migration.until(({ writeRate }) => writeRate > 0);
      const result = await work();
      stop.abort();
      return result;
    });
  } finally {
    stop.abort();
    await writers;
  }
};

/** Each row idle and beside the hammer, in turn. */
export const throttleLines = async (setting: Setting): Promise<readonly Line[]> => {
  const { pair, options } = setting;
  await fillImage(pair.source.daemon.below(OTHER), OTHER_BYTES);
  const measure = ({ image, access }: (typeof ROWS)[number]): Promise<FioFigures> =>
    measureFio({
      file: pair.source.daemon.at(image),
      ...access,
      span: OTHER_BYTES,
      direct: true,
      engine: 'psync',
      depth: 1,
      seconds: options.seconds,
      loop: true,
    });
  const lines: Line[] = [];
  for (const hammer of HAMMERS) {
    const ratios = new Map(ROWS.map(({ what }) => [what, [] as number[]]));
    const idles = new Map(ROWS.map(({ what }) => [what, [] as number[]]));
    for (let round = 0; round < options.rounds; round++)
      for (const row of inTurn(ROWS, round)) {
        process.stderr.write(`  ${hammer.what}, round ${round + 1}: ${row.what}\n`);
        const idle = await measure(row);
        const beside = await whileThrottled(setting, hammer, () => measure(row));
        idles.get(row.what)!.push(idle.iops);
        ratios.get(row.what)!.push(beside.iops / idle.iops);
      }
    for (const { what } of ROWS)
      lines.push({
        what: `${what}, beside ${hammer.what}`,
        value: `idle ${fixed(median(idles.get(what)!), 0)} IOPS`,
        verdict: { ratio: median(ratios.get(what)!), bar: BAR },
      });
  }
  return lines;
};

/** Bytes per second. */
const SMOOTH_LIMIT = 10_000_000;
const BURST_MAX_MICROS = 50_000;

/** The guest's 4k writes one after the other under a disk limit: each waits a little, none waits for a burst to be over. */
export const smoothLines = async (setting: Setting): Promise<readonly Line[]> => {
  const { pair, options } = setting;
  const figures: FioFigures[] = [];
  for (let round = 0; round < options.rounds; round++)
    await whileMigrating(setting, { netLimit: NET_CRAWL, diskLimit: SMOOTH_LIMIT }, async () => {
      figures.push(
        await measureFio({
          file: pair.source.daemon.at(IMAGE),
          rw: 'randwrite',
          block: 4 * KIB,
          jobs: 1,
          span: options.size,
          direct: true,
          engine: 'psync',
          depth: 1,
          seconds: Math.max(options.seconds, 3),
          loop: true,
        }),
      );
    });
  const middle = (key: 'bytesPerSecond' | 'p50' | 'p99'): number => median(figures.map((each) => each[key]));
  return [
    {
      what: `4k writes, QD1, under a disk limit of ${SMOOTH_LIMIT / 1e6} MB/s: rate of the limit`,
      value: `p50 ${fixed(middle('p50'), 0)} us, p99 ${fixed(middle('p99'), 0)} us`,
      verdict: { ratio: middle('bytesPerSecond') / SMOOTH_LIMIT },
    },
    {
      what: 'p99 of a burst of 50 ms',
      value: '',
      verdict: { ratio: middle('p99') / BURST_MAX_MICROS, bar: 0.2, sense: 'at-most' },
    },
  ];
};
