/** A task of the scheduler as it is kept: everything that a restart must know, and nothing that it can ask for again. */
import type { PlainError } from '../../leaves/errors.js';
import type { TaskSnapshot, TaskStateName } from '../../leaves/scheduler.js';
import { TASK_EDGES } from '../../leaves/scheduler.js';
import type { Bytes, Millis } from '../../leaves/units.js';
import type { MoveProgress } from './hypervisor-driver.js';

export type TaskState =
  /** `uncertain`: the last start got no answer, so the next one is the same attempt. */
  | { readonly kind: 'waiting'; readonly retryAt?: Millis; readonly uncertain?: boolean }
  /** The attempt may have reached the source daemon, or not. */
  | { readonly kind: 'starting' }
  | { readonly kind: 'copying'; readonly migrationId: string }
  /** The driver may have been started, or not. */
  | { readonly kind: 'handing-over'; readonly migrationId: string }
  | { readonly kind: 'finishing'; readonly migrationId: string }
  | {
      readonly kind: 'rolling-back';
      /** Absent: whether there is a migration is not known. */
      readonly migrationId?: string;
      /** The driver may have been started. */
      readonly driven: boolean;
      readonly outcome: 'failed' | 'cancelled';
      readonly error: PlainError;
    }
  | { readonly kind: 'done' }
  | { readonly kind: 'failed'; readonly error: PlainError }
  | { readonly kind: 'cancelled'; readonly error?: PlainError };

/** What was asked for, and what admission said; never changes. */
export interface TaskOrder {
  readonly requestId?: string;
  readonly vm: string;
  readonly images: readonly string[];
  readonly source: string;
  readonly target: string;
  readonly notBefore?: Millis;
  readonly deadline?: Millis;
  readonly priority: number;
  readonly important: boolean;
  readonly danger: number;
  readonly warning: number;
  readonly writeRate: number;
  readonly driver: string;
  readonly late: boolean;
  readonly admission: string;
  readonly latestStart?: Millis;
  readonly bytesTotal: Bytes;
}

export interface Unanswered {
  readonly times: number;
  /** How long they were waited for, and the pauses between them. */
  readonly silence: Millis;
}

export interface Task extends TaskOrder {
  readonly id: string;
  /** Order of submission. */
  readonly number: number;
  readonly state: TaskState;
  readonly reason: string;
  readonly attempt: number;
  /** Of the newest attempt that is known to have reached the source daemon. */
  readonly migrationId?: string;
  /** The driver has succeeded: the VM runs on the target whatever becomes of the disks. */
  readonly vmMoved: boolean;
  /** Somebody wants it to end; where a call is under way, after its answer. */
  readonly cancelWanted: boolean;
  /** Starts of this attempt that got no answer. */
  readonly unanswered?: Unanswered | undefined;
  /** How long the VM stood still when it was moved. */
  readonly vmDowntime?: Millis;
  readonly submittedAt: Millis;
  readonly startedAt?: Millis;
  readonly endedAt?: Millis;
}

/** Of the migration that runs for a task; not kept. */
export interface TaskProgress {
  readonly bytesLeft: Bytes;
  readonly netRate: number;
  readonly dirtyRate: number;
  readonly eta?: Millis;
}

/** Where a step of the work is under way. */
export const isActive = (state: TaskStateName): boolean =>
  state !== 'waiting' && TASK_EDGES[state].length > 0;

const errorOf = (state: TaskState): PlainError | undefined => ('error' in state ? state.error : undefined);

/** Time to the deadline divided by the time that is needed; undefined without both. */
export const laxityOf = (
  deadline: Millis | undefined,
  eta: Millis | undefined,
  vmmTime: Millis,
  now: Millis,
): number | undefined =>
  deadline === undefined || eta === undefined ? undefined : (deadline - now) / Math.max(1, eta + vmmTime);

export const snapshotOfTask = (
  task: Task,
  progress: TaskProgress | undefined,
  move: MoveProgress | undefined,
  vmmTime: Millis,
  now: Millis,
): TaskSnapshot => {
  const {
    state,
    number: _number,
    vmMoved: _vmMoved,
    cancelWanted: _wanted,
    unanswered: _silence,
    ...rest
  } = task;
  const error = errorOf(state);
  const laxity = laxityOf(task.deadline, progress?.eta, vmmTime, now);
  return {
    ...rest,
    ...move,
    state: state.kind,
    ...(progress && { bytesLeft: progress.bytesLeft, netRate: progress.netRate }),
    ...(progress?.eta !== undefined && { eta: progress.eta }),
    ...(laxity !== undefined && { laxity }),
    ...(error && { error }),
  };
};
