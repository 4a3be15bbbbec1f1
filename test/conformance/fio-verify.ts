/** fio's verifying writers through each of its engines that a hypervisor resembles (fio(1), verify). */
import { type FioOptions, runFio } from '../support/fio.js';
import { complaintOf } from '../support/verified-load.js';

const KIB = 1024;

/** One pass: every block is written once, in random order, and read back with its checksum. */
export interface FioPass {
  readonly engine: 'psync' | 'libaio' | 'io_uring' | 'mmap';
  readonly direct: boolean;
  readonly blockBytes: number;
  readonly jobs: number;
}

const ENGINES = ['psync', 'libaio', 'io_uring', 'mmap'] as const;
const BLOCK_SIZES = [4 * KIB, 64 * KIB, 1024 * KIB];

/** Blocks that are no multiple of a page: buffered only. */
const ODD_BLOCK = 7 * KIB;

export const FIO_PASSES: readonly FioPass[] = ENGINES.flatMap((engine) =>
  // A mapping has no O_DIRECT.
  (engine === 'mmap' ? [false] : [false, true]).flatMap((direct) =>
    [...BLOCK_SIZES, ...(direct ? [] : [ODD_BLOCK])].flatMap((blockBytes) =>
      // fio 3.33 finds its own blocks damaged in a plain folder too where jobs map one file at different offsets.
      (engine === 'mmap' ? [1] : [1, 4]).map((jobs) => ({ engine, direct, blockBytes, jobs })),
    ),
  ),
);

export const fioPassName = ({ engine, direct, blockBytes, jobs }: FioPass): string =>
  `${engine} ${direct ? 'direct' : 'buffered'} ${blockBytes / KIB} KiB, ${jobs} ${jobs === 1 ? 'job' : 'jobs'}`;

const QUEUE_DEPTH = 8;

/** `size` bytes in all, the jobs beside each other in one file. Resolves to what fio complains of, or ''. */
export const fioVerify = async (
  file: string,
  { engine, direct, blockBytes, jobs }: FioPass,
  size: number,
  seed: number,
): Promise<string> => {
  const part = Math.floor(size / jobs / blockBytes) * blockBytes;
  const options: FioOptions = {
    filename: file,
    rw: 'randwrite',
    bs: blockBytes,
    numjobs: jobs,
    size: part,
    offset_increment: part,
    direct: direct ? 1 : 0,
    ioengine: engine,
    iodepth: engine === 'libaio' || engine === 'io_uring' ? QUEUE_DEPTH : 1,
    randseed: seed,
    verify: 'crc32c',
    verify_fatal: 1,
    do_verify: 1,
    fallocate: 'none',
    thread: true,
    group_reporting: true,
  };
  return complaintOf(await runFio(options));
};
