import { type FioOptions, runFioOk } from '../test/support/fio.js';

/** One fio run against one file. */
export interface FioJob {
  readonly file: string;
  readonly rw: 'randread' | 'randwrite' | 'read' | 'write' | 'randrw';
  /** Bytes of one request, or a fio `bssplit` such as `4k/50:64k/50`. */
  readonly block: number | string;
  /** Parallel jobs; each works on its own region of the file. */
  readonly jobs: number;
  /** Bytes of the file that the jobs share, from its beginning. */
  readonly span: number;
  readonly direct: boolean;
  /** `nbd`: `file` is the URI of an export. */
  readonly engine: 'psync' | 'libaio' | 'nbd';
  readonly depth: number;
  /** At most this long; with `loop` exactly this long. */
  readonly seconds: number;
  /** Goes on past one coverage of the span. Without it no byte is touched twice, so that no cache above helps. */
  readonly loop: boolean;
  readonly extra?: FioOptions;
}

export interface FioFigures {
  readonly bytes: number;
  readonly seconds: number;
  readonly bytesPerSecond: number;
  readonly iops: number;
  /** Completion latency, microseconds. */
  readonly p50: number;
  readonly p99: number;
}

const fioOptions = (job: FioJob): FioOptions => ({
  rw: job.rw,
  ...(typeof job.block === 'number' ? { bs: job.block } : { bssplit: job.block }),
  numjobs: job.jobs,
  size: Math.floor(job.span / job.jobs),
  offset_increment: Math.floor(job.span / job.jobs),
  direct: job.direct ? 1 : 0,
  ioengine: job.engine,
  // An engine's own option is known only after the engine.
  ...(job.engine === 'nbd' ? { uri: job.file } : { filename: job.file }),
  iodepth: job.depth,
  runtime: job.seconds,
  ...(job.loop ? { time_based: true } : {}),
  thread: true,
  group_reporting: true,
  invalidate: 1,
  fallocate: 'none',
  randrepeat: 0,
  ...job.extra,
});

/** Runs one job; an I/O error of the job is an error here. */
export const measureFio = async (job: FioJob, signal?: AbortSignal): Promise<FioFigures> => {
  const [result] = await runFioOk(fioOptions(job), signal);
  const side = job.rw.endsWith('read') ? result!.read : result!.write;
  const micros = (percentile: string): number => (side.clat_ns.percentile?.[percentile] ?? Number.NaN) / 1000;
  return {
    bytes: side.io_bytes,
    seconds: side.io_bytes / side.bw_bytes,
    bytesPerSecond: side.bw_bytes,
    iops: side.iops,
    p50: micros('50.000000'),
    p99: micros('99.000000'),
  };
};
