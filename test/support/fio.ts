/** fio jobs with their results read from its JSON output (fio(1), --output-format=json). */
import { run } from './run.js';

/** Job options by fio's own names; `true` stands for an option without a value. */
export type FioOptions = Readonly<Record<string, string | number | true>>;

export interface FioDirection {
  readonly io_bytes: number;
  readonly bw_bytes: number;
  readonly iops: number;
  readonly total_ios: number;
  readonly clat_ns: { readonly mean: number; readonly percentile?: Readonly<Record<string, number>> };
}

export interface FioJob {
  readonly jobname: string;
  readonly error: number;
  readonly read: FioDirection;
  readonly write: FioDirection;
}

export interface FioResult {
  readonly code: number | null;
  readonly jobs: readonly FioJob[];
  /** Where fio complains: I/O errors and verification mismatches. */
  readonly stderr: string;
}

/** Without the last, a verifying job leaves a file where it runs. */
const DEFAULTS: FioOptions = { name: 'job', verify_state_save: 0 };

/** Runs one fio job. Does not reject when the job fails: `code` and each job's `error` say so. */
export const runFio = async (options: FioOptions, signal?: AbortSignal): Promise<FioResult> => {
  const args = Object.entries<string | number | true>({ ...DEFAULTS, ...options }).map(([key, value]) =>
    value === true ? `--${key}` : `--${key}=${value}`,
  );
  const result = await run('fio', ['--output-format=json', ...args], signal ? { signal } : {});
  // fio may put notes before the JSON on stdout.
  const start = result.stdout.indexOf('{');
  const parsed = start < 0 ? { jobs: [] } : (JSON.parse(result.stdout.slice(start)) as { jobs: FioJob[] });
  return {
    code: result.code,
    jobs: parsed.jobs,
    stderr: start > 0 ? result.stdout.slice(0, start) + result.stderr : result.stderr,
  };
};

/** Runs one fio job that must end without an error, and returns its jobs. */
export const runFioOk = async (options: FioOptions, signal?: AbortSignal): Promise<readonly FioJob[]> => {
  const result = await runFio(options, signal);
  const failed = result.jobs.find((job) => job.error !== 0);
  if (result.code !== 0 || failed || result.jobs.length === 0)
    throw new Error(`fio failed (exit ${result.code}, error ${failed?.error ?? 0})\n${result.stderr}`);
  return result.jobs;
};
