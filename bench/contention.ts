/** One fio job beside others that do what they can: in one run, so that they overlap whatever the machine's load is. */
import type { FioJob as FioResultJob } from '../test/support/fio.js';
import { runOk } from '../test/support/run.js';
import { type FioFigures, type FioJob, figuresOf, fioOptions } from './fio.js';

/** How long the others are at it before the measured job begins. */
const LEAD_MILLIS = 500;
/** The others end with the measured job; should it hang, after this. */
const OTHERS_MAX_SECONDS = 60;

const argumentsOf = (name: string, job: FioJob, extra: readonly string[]): readonly string[] => {
  // Processes, not threads: they share nothing, as those of two VMs do.
  const { thread: _, ...options } = fioOptions(job);
  return [
    `--name=${name}`,
    ...Object.entries(options).map(([key, value]) => (value === true ? `--${key}` : `--${key}=${value}`)),
    ...extra,
  ];
};

export interface ContendedFigures {
  readonly measured: FioFigures;
  /** null: the job was alone. */
  readonly others: FioFigures | null;
}

export const measureBeside = async (
  job: FioJob,
  others: FioJob | null,
  signal: AbortSignal,
): Promise<ContendedFigures> => {
  const beside = others ? argumentsOf('others', { ...others, seconds: OTHERS_MAX_SECONDS }, []) : [];
  const start = others ? ['--new_group', `--startdelay=${LEAD_MILLIS}ms`] : [];
  const { stdout } = await runOk(
    'fio',
    [
      '--output-format=json',
      '--exitall',
      '--exit_what=all',
      ...beside,
      ...argumentsOf('measured', job, start),
    ],
    { signal },
  );
  const { jobs } = JSON.parse(stdout.slice(stdout.indexOf('{'))) as { jobs: readonly FioResultJob[] };
  const failed = jobs.find(({ error }) => error !== 0);
  if (failed) throw new Error(`fio failed (error ${failed.error})`);
  const named = (name: string): FioFigures => {
    const found = jobs.find(({ jobname }) => jobname === name);
    if (!found) throw new Error(`fio reports no ${name}`);
    return figuresOf(found);
  };
  const result = { measured: named('measured'), others: others ? named('others') : null };
  if (result.others && result.others.seconds < result.measured.seconds)
    throw new Error('the others ended before the measured job');
  return result;
};
