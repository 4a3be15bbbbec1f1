/** A write load that checks itself: fio's random writers with a CRC32C in every block (fio(1), verify). */
import type { FioOptions, FioResult } from './fio.js';
import { runFio } from './fio.js';
import type { Random } from './random.js';

const KIB = 1024;
const MIB = 1024 * KIB;

/** One pass of the load: every byte of the region is written exactly once, in random order. */
export interface LoadShape {
  /** Sizes of the requests as fio's `bssplit`. */
  readonly blocks: string;
  readonly jobs: number;
  readonly direct: boolean;
  readonly engine: 'psync' | 'libaio';
  readonly depth: number;
  readonly seed: number;
  /** The region of the file, bytes; `span` divides by `jobs` into multiples of the largest request. */
  readonly offset: number;
  readonly span: number;
}

const BLOCK_MIXES = [
  '4k/100',
  '4k/60:16k/20:64k/15:256k/5',
  '4k/30:64k/40:256k/30',
  '8k/50:128k/50',
  '4k/90:256k/10',
];
const JOB_COUNTS = [1, 2, 4, 8];

/** The next shape of a varied load over one region. */
export const randomShape = (random: Random, offset: number, span: number): LoadShape => {
  const engine = random.pick(['psync', 'libaio'] as const);
  return {
    blocks: random.pick(BLOCK_MIXES),
    jobs: random.pick(JOB_COUNTS),
    // libaio is asynchronous only with direct I/O; buffered it is a second way to the same system calls.
    direct: random.chance(50),
    engine,
    depth: engine === 'libaio' ? random.pick([1, 4, 16]) : 1,
    seed: random.below(1_000_000) + 1,
    offset,
    span,
  };
};

export const shapeText = (shape: LoadShape): string =>
  `${shape.jobs}x${shape.engine}${shape.depth > 1 ? shape.depth : ''} ${shape.direct ? 'direct' : 'buffered'} ${shape.blocks}`;

const optionsOf = (file: string, shape: LoadShape): FioOptions => ({
  filename: file,
  rw: 'randwrite',
  bssplit: shape.blocks,
  numjobs: shape.jobs,
  offset: shape.offset,
  size: Math.floor(shape.span / shape.jobs),
  offset_increment: Math.floor(shape.span / shape.jobs),
  direct: shape.direct ? 1 : 0,
  ioengine: shape.engine,
  iodepth: shape.depth,
  randseed: shape.seed,
  verify: 'crc32c',
  verify_fatal: 1,
  fallocate: 'none',
  thread: true,
  group_reporting: true,
});

/** What a pass has found wrong, or the empty string. */
export const complaintOf = ({ code, jobs, stderr }: FioResult): string => {
  const failed = jobs.find((job) => job.error !== 0);
  if (code === 0 && !failed && jobs.length > 0) return '';
  return `fio ended with ${code}, error ${failed?.error ?? 0}: ${stderr.replace(/\s+/g, ' ').slice(0, 500)}`;
};

export interface PassResult {
  readonly complaint: string;
  readonly bytes: number;
  /** Bytes per second while it wrote. */
  readonly rate: number;
}

const passResult = (result: FioResult, side: 'read' | 'write'): PassResult => ({
  complaint: complaintOf(result),
  bytes: result.jobs[0]?.[side].io_bytes ?? 0,
  rate: result.jobs[0]?.[side].bw_bytes ?? 0,
});

/** Writes the region once, at most at `rate` bytes per second, and reads it back with all checks unless told not to. */
export const writePass = async (
  file: string,
  shape: LoadShape,
  options: { readonly readBack?: boolean; readonly rate?: number; readonly signal?: AbortSignal } = {},
): Promise<PassResult> =>
  passResult(
    await runFio(
      {
        ...optionsOf(file, shape),
        do_verify: options.readBack === false ? 0 : 1,
        ...(options.rate === undefined
          ? {}
          : { rate: `,${Math.max(MIB, Math.floor(options.rate / shape.jobs))}` }),
      },
      options.signal,
    ),
    'write',
  );

/** Checks everything that a pass of this shape has written, without writing. */
export const verifyPass = async (file: string, shape: LoadShape, signal?: AbortSignal): Promise<PassResult> =>
  passResult(await runFio({ ...optionsOf(file, shape), verify_only: true }, signal), 'read');
