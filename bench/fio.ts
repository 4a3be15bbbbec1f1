import { type FioOptions, type FioJob as FioResultJob, runFioOk } from '../test/support/fio.js';

/** One fio run against one file. */
export interface FioJob {
  readonly file: string;
  /** `rw` and `randrw` open the file for both, whatever `readShare` is; reads alone open it for reading only. */
  readonly rw: 'randread' | 'randwrite' | 'read' | 'write' | 'rw' | 'randrw';
  /** Percent of the requests that are reads, for `rw` and `randrw`. */
  readonly readShare?: number;
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
  /** Both directions together, as the rates are. */
  readonly bytes: number;
  readonly seconds: number;
  readonly bytesPerSecond: number;
  readonly iops: number;
  /** Completion latency, microseconds; of the reads where a job does both. */
  readonly p50: number;
  readonly p99: number;
  /** CPU seconds of the jobs' own threads, user and system: what the caller pays, the kernel's part in its calls included. */
  readonly callerCpu: number;
}

/** fio(1), JSON output: percentages of `job_runtime`, which is the sum of all jobs' milliseconds. */
interface CpuUse {
  readonly usr_cpu: number;
  readonly sys_cpu: number;
  readonly job_runtime: number;
}

export const fioOptions = (job: FioJob): FioOptions => ({
  rw: job.rw,
  ...(job.readShare === undefined ? {} : { rwmixread: job.readShare }),
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

/** What one job, or one group of jobs, of fio's report says. */
export const figuresOf = (result: FioResultJob): FioFigures => {
  const { read, write } = result;
  const { usr_cpu, sys_cpu, job_runtime } = result as FioResultJob & CpuUse;
  const latencies = (read.total_ios > 0 ? read : write).clat_ns.percentile;
  const micros = (percentile: string): number => (latencies?.[percentile] ?? Number.NaN) / 1000;
  const bytes = read.io_bytes + write.io_bytes;
  const bytesPerSecond = read.bw_bytes + write.bw_bytes;
  return {
    bytes,
    seconds: bytes / bytesPerSecond,
    bytesPerSecond,
    iops: read.iops + write.iops,
    p50: micros('50.000000'),
    p99: micros('99.000000'),
    callerCpu: ((usr_cpu + sys_cpu) / 100) * (job_runtime / 1000),
  };
};

/** Runs one job; an I/O error of the job is an error here. */
export const measureFio = async (job: FioJob, signal?: AbortSignal): Promise<FioFigures> => {
  const [result] = await runFioOk(fioOptions(job), signal);
  return figuresOf(result!);
};
