import type { Clock } from '../../leaves/clock.js';
import { formatDuration } from '../../leaves/duration.js';
import type { PlainError } from '../../leaves/errors.js';
import { MigrateFsError } from '../../leaves/errors.js';
import type { LogSink } from '../../leaves/log-sink.js';
import type { MigrationSnapshot } from '../../leaves/migration.js';
import type { Millis } from '../../leaves/units.js';
import { millis } from '../../leaves/units.js';
import type { HostControl } from './host-control.js';
import type { HypervisorDriver, MoveJob } from './hypervisor-driver.js';
import type { MoveSlots } from './move-slots.js';
import { targetOwns } from './target-ownership.js';
import type { Task, TaskState } from './task.js';
import type { TaskBook } from './task-book.js';

/** Before an attempt that follows one that failed; doubled for each further one. */
const ATTEMPT_DELAY = millis(2_000);
const ATTEMPT_DELAY_MAX = millis(60_000);
/** The part of a pause that chance may take away, so that what has failed together is not tried together. */
const JITTER = 0.5;
/** What no further attempt would change. */
const PERMANENT: readonly string[] = ['INVALID_ARGUMENT', 'ALREADY_EXISTS', 'PERMISSION_DENIED', 'NOT_FOUND'];

const delayAfter = (failures: number): number =>
  Math.min(ATTEMPT_DELAY_MAX, ATTEMPT_DELAY * 2 ** (failures - 1));

/** When the next attempt of a task may begin, where that is still to come. What is further away: the clock was set back. */
export const retryAfter = (state: TaskState, now: Millis): Millis | undefined => {
  if (state.kind !== 'waiting' || state.retryAt === undefined) return undefined;
  const wait = state.retryAt - now;
  return wait > 0 && wait <= ATTEMPT_DELAY_MAX ? state.retryAt : undefined;
};

/** What the runs of all tasks have in common. */
export interface RunEnvironment {
  readonly book: TaskBook;
  readonly hosts: HostControl;
  /** By name; `none` is not among them. */
  readonly drivers: ReadonlyMap<string, HypervisorDriver>;
  readonly moves: MoveSlots;
  readonly clock: Clock;
  readonly log: LogSink;
  /** The store's: makes request ids unlike those of any other scheduler. */
  readonly storeId: string;
  readonly attemptsMax: number;
  /** How long a source that does not answer is asked to start a migration. */
  readonly answerWait: Millis;
  /** From 0 to 1. */
  readonly random: () => number;
  /** How long the VM's first write on the target is waited for before the images are handed over without it. */
  readonly firstWriteWait: Millis;
  readonly vmmTime: Millis;
  /** The migration of a task has begun or ended, so paths and sharers of others are different now. */
  readonly onMigration: () => void;
}

/** Thrown where a step ends because somebody wants the task to. */
export class Cancelled extends Error {}

/** What the steps of one task share: what is known of it, and the ways out of a step. */
export class RunContext {
  readonly env: RunEnvironment;
  readonly id: string;
  /** Aborts steps that a cancellation may interrupt. */
  readonly cancelled: AbortSignal;

  constructor(env: RunEnvironment, id: string, cancelled: AbortSignal) {
    this.env = env;
    this.id = id;
    this.cancelled = cancelled;
  }

  get task(): Task {
    return this.env.book.get(this.id);
  }

  enter(state: TaskState, text: string, change: Parameters<TaskBook['transition']>[3] = {}): void {
    this.env.book.transition(this.id, state, text, change);
  }

  requestId(): string {
    return `${this.env.storeId}-${this.id}-${this.task.attempt}`;
  }

  /** The source daemon does not know the migration: it was restarted, or dropped one that ended long ago. */
  async forgotten(signal: AbortSignal): Promise<void> {
    await this.attemptFailed(
      { code: 'NOT_FOUND', message: `${this.task.source} does not know the migration any more` },
      signal,
    );
  }

  /** Another attempt, unless the target has the images already, or enough was tried. Rejects with `Cancelled`. */
  async attemptFailed(error: PlainError, signal: AbortSignal): Promise<void> {
    const { attempt, target, vmMoved } = this.task;
    const owner = await targetOwns(this.env.hosts, this.task, signal);
    if (owner === true) {
      this.enter({ kind: 'done' }, `${target} owns the images (${error.message})`);
      this.env.onMigration();
      return;
    }
    // It may have been asked for meanwhile; the signal stays aborted where that was too late.
    if (this.task.cancelWanted) throw new Cancelled();
    const forgotten = this.task.state.kind !== 'starting' && error.code === 'NOT_FOUND';
    const hopeless = PERMANENT.includes(error.code) && !forgotten;
    if (hopeless || attempt >= this.env.attemptsMax) {
      const after = attempt > 1 ? ` (attempt ${attempt})` : '';
      const where = vmMoved ? `; the VM is on ${target} already, its disks are not` : '';
      return this.fail(error.code, `${error.message}${after}${where}`);
    }
    const retryAt = this.retryTime(attempt);
    this.enter(
      { kind: 'waiting', retryAt },
      `attempt ${attempt} of ${this.env.attemptsMax} failed: ${error.message}; ` +
        `the next one in ${formatDuration(retryAt - this.env.clock.wall())}`,
      { unanswered: undefined },
    );
    this.env.onMigration();
  }

  retryTime(failures: number): Millis {
    return millis(this.env.clock.wall() + delayAfter(failures));
  }

  /** Before a source that did not answer is asked again. */
  pauseAfter(failures: number): Millis {
    return millis(delayAfter(failures) * (1 - JITTER * this.env.random()));
  }

  fail(code: PlainError['code'], message: string): void {
    this.enter({ kind: 'failed', error: { code, message } }, message);
    this.env.onMigration();
  }

  beginRollBack(
    outcome: 'failed' | 'cancelled',
    message: string,
    code: PlainError['code'],
    known?: string,
  ): void {
    const { state } = this.task;
    const migrationId = known ?? ('migrationId' in state ? state.migrationId : undefined);
    this.enter(
      {
        kind: 'rolling-back',
        ...(migrationId !== undefined && { migrationId }),
        driven: state.kind === 'handing-over',
        outcome,
        error: { code, message },
      },
      outcome === 'cancelled' ? 'being cancelled' : `being undone: ${message}`,
      migrationId === undefined ? {} : { migrationId },
    );
  }

  report({ bytesLeft, netRate, dirtyRate, eta, state }: MigrationSnapshot): void {
    const inSync = state === 'mirroring' || state === 'cutover';
    const left = inSync ? millis(0) : eta;
    this.env.book.setProgress(this.id, {
      bytesLeft,
      netRate,
      dirtyRate,
      ...(left !== undefined && { eta: left }),
    });
  }

  driver(): HypervisorDriver {
    const { driver } = this.task;
    const found = this.env.drivers.get(driver);
    if (!found)
      throw new MigrateFsError(
        'FAILED_PRECONDITION',
        `the scheduler's configuration has no driver '${driver}' any more`,
      );
    return found;
  }

  job(migrationId: string, first = false): MoveJob {
    const { attempt, vm, images, source, target, deadline } = this.task;
    return {
      task: this.id,
      attempt,
      vm,
      images,
      source,
      target,
      migrationId,
      first,
      ...(deadline !== undefined && { deadline }),
    };
  }
}
