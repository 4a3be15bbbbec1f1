import { rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Clock } from '../../leaves/clock.js';
import { formatDuration } from '../../leaves/duration.js';
import { MigrateFsError } from '../../leaves/errors.js';
import type { Millis } from '../../leaves/units.js';
import type { CommandResult } from './command-run.js';
import { CommandRun, endWithin } from './command-run.js';
import type { HypervisorDriver, MoveJob } from './hypervisor-driver.js';

/** What a configuration says. */
export interface ExecSettings {
  /** Program and arguments; it ends with 0 when the VM runs on the target. */
  readonly command: readonly string[];
  /** Run after a command that did not end with 0: brings the VM back to the source. */
  readonly rollback?: readonly string[];
  /** Of each of the two. */
  readonly timeout: Millis;
}

export interface ExecDriverOptions extends ExecSettings {
  /** Where the runs are kept. */
  readonly folder: string;
  readonly clock: Clock;
  /** What the commands inherit. */
  readonly env: NodeJS.ProcessEnv;
}

/** Has a command move the VM. */
export class ExecDriver implements HypervisorDriver {
  readonly #options: ExecDriverOptions;

  constructor(options: ExecDriverOptions) {
    this.#options = options;
  }

  async move(job: MoveJob, signal: AbortSignal): Promise<void> {
    await this.#run(job, 'move', this.#options.command, signal);
  }

  async stop(job: MoveJob): Promise<'moved' | 'not-moved'> {
    const run = this.#runOf(job, 'move');
    const result = await run.kill();
    if (result.how === 'unknown')
      throw new MigrateFsError('UNAVAILABLE', `the driver ${endWords(result)}: see ${run.outputFile}`);
    return result.status === 0 ? 'moved' : 'not-moved';
  }

  async rollBack(job: MoveJob, signal: AbortSignal): Promise<void> {
    const { rollback } = this.#options;
    if (rollback && this.#runOf(job, 'move').begun) await this.#run(job, 'rollback', rollback, signal);
  }

  forget(task: string): void {
    rmSync(join(this.#options.folder, task), { recursive: true, force: true });
  }

  #runOf(job: MoveJob, what: 'move' | 'rollback'): CommandRun {
    return new CommandRun(
      join(this.#options.folder, job.task, `${what}-${job.attempt}`),
      this.#options.clock,
    );
  }

  async #run(
    job: MoveJob,
    what: 'move' | 'rollback',
    command: readonly string[],
    signal: AbortSignal,
  ): Promise<void> {
    const { clock, timeout, env } = this.#options;
    const run = this.#runOf(job, what);
    await run.start(command, { ...env, ...variablesOf(job) });
    const result = await endWithin(run, clock, timeout, signal);
    if (result.status === 0) return;
    const name = what === 'move' ? 'driver' : 'rollback command';
    if (result.late)
      throw new MigrateFsError(
        'DEADLINE_EXCEEDED',
        `the ${name} took longer than ${formatDuration(timeout)} and was ended: see ${run.outputFile}`,
      );
    throw new MigrateFsError(
      'ABORTED',
      `the ${name} ${endWords(result)}${await shown(run)}: see ${run.outputFile}`,
    );
  }
}

const END_WORDS = {
  killed: 'was killed',
  'not-begun': 'could not be run',
  unknown: 'is gone, and how it ended is not recorded',
} as const;

const endWords = ({ status, how }: CommandResult): string =>
  how === 'ended' ? `ended with status ${status}` : END_WORDS[how];

const shown = async (run: CommandRun): Promise<string> => {
  const line = await run.lastLine();
  return line === '' ? '' : ` (${line})`;
};

const variablesOf = (job: MoveJob): NodeJS.ProcessEnv => ({
  MIGRATEFS_TASK: job.task,
  MIGRATEFS_ATTEMPT: String(job.attempt),
  MIGRATEFS_VM: job.vm,
  // One a line: names may hold blanks.
  MIGRATEFS_IMAGES: job.images.join('\n'),
  MIGRATEFS_SOURCE: job.source,
  MIGRATEFS_TARGET: job.target,
  MIGRATEFS_MIGRATION: job.migrationId,
  MIGRATEFS_DEADLINE: job.deadline === undefined ? '' : new Date(job.deadline).toISOString(),
});
