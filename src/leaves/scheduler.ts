/** The vocabulary of the Migrations Scheduler: what is asked for, what is reported. */
import type { PlainError } from './errors.js';
import type { Bytes, Millis } from './units.js';

export type TaskStateName =
  | 'waiting'
  | 'starting'
  | 'copying'
  | 'handing-over'
  | 'finishing'
  | 'rolling-back'
  | 'done'
  | 'failed'
  | 'cancelled';

/** Legal edges. A state without edges is final. */
export const TASK_EDGES: Readonly<Record<TaskStateName, readonly TaskStateName[]>> = {
  waiting: ['starting', 'rolling-back', 'failed', 'cancelled'],
  starting: ['copying', 'waiting', 'rolling-back', 'done', 'failed'],
  copying: ['handing-over', 'finishing', 'waiting', 'rolling-back', 'done', 'failed'],
  'handing-over': ['finishing', 'rolling-back'],
  finishing: ['waiting', 'done', 'failed'],
  // On to `finishing` where the driver turns out to have succeeded before it could be ended.
  'rolling-back': ['finishing', 'done', 'failed', 'cancelled'],
  done: [],
  failed: [],
  cancelled: [],
};

export const TASK_STATES = Object.keys(TASK_EDGES) as readonly TaskStateName[];

export const isTaskFinal = (state: TaskStateName): boolean => TASK_EDGES[state].length === 0;

/** A driver of this name is always there: it moves disks only. */
export const NO_DRIVER = 'none';

/** What a client asks for, checked by its form alone. */
export interface TaskRequest {
  /** A second task with the same one is not made. */
  readonly requestId?: string;
  readonly vm: string;
  readonly images: readonly string[];
  /** Names of hosts in the topology. */
  readonly source: string;
  readonly target: string;
  /** Wall clock. */
  readonly notBefore?: Millis;
  readonly deadline?: Millis;
  /** 0 (least) to 9. */
  readonly priority: number;
  readonly important: boolean;
  /** Laxity ratios; absent: the scheduler's defaults. */
  readonly danger?: number;
  readonly warning?: number;
  /** Bytes per second that the guest is expected to write. */
  readonly writeRate: number;
  /** Absent: the scheduler's default. */
  readonly driver?: string;
  readonly insist: boolean;
}

/** Everything that is reported of a task; a plain value. */
export interface TaskSnapshot {
  readonly id: string;
  readonly state: TaskStateName;
  /** Why it waits, or what it does, in words. */
  readonly reason: string;
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
  /** Admitted at the client's insistence. */
  readonly late: boolean;
  /** The arithmetic of admission, in words. */
  readonly admission: string;
  readonly latestStart?: Millis;
  readonly submittedAt: Millis;
  readonly startedAt?: Millis;
  readonly endedAt?: Millis;
  readonly attempt: number;
  readonly migrationId?: string;
  readonly bytesTotal: Bytes;
  /** Of the running migration. */
  readonly bytesLeft?: Bytes;
  readonly netRate?: number;
  readonly eta?: Millis;
  /** Time to the deadline divided by the time still needed. */
  readonly laxity?: number;
  readonly error?: PlainError;
  /** Of the VM's memory, while a driver that knows moves it. */
  readonly ramSent?: Bytes;
  readonly ramLeft?: Bytes;
  /** How long the VM stood still when it was moved, as far as its driver can tell. */
  readonly vmDowntime?: Millis;
}

/** An entry of the audit log. */
export interface TaskDecision {
  readonly at: Millis;
  /** One line with the numbers. */
  readonly text: string;
  /** The state that the task entered with it. */
  readonly state?: TaskStateName;
  /** It was made so often, first at `at`, and last at `lastAt`; absent: once. */
  readonly times?: number;
  readonly lastAt?: Millis;
}

export interface TaskPage {
  readonly tasks: readonly TaskSnapshot[];
  /** Where to go on; absent: that was all. */
  readonly next?: string;
}

export interface TaskQuery {
  /** Empty: all. */
  readonly states: readonly TaskStateName[];
  readonly limit: number;
  /** `next` of the page before: the id of its last task. */
  readonly after?: string;
}

export interface SchedulerStatus {
  readonly version: string;
  readonly pid: number;
  readonly address: string;
  readonly store: string;
  readonly startedAt: Millis;
  readonly waiting: number;
  readonly running: number;
  readonly ended: number;
  readonly hot: readonly string[];
}

/** What the control API may ask of the scheduler; every method rejects or throws a `MigrateFsError`. */
export interface SchedulerControl {
  submit(request: TaskRequest): Promise<TaskSnapshot>;
  get(id: string): TaskSnapshot;
  list(query: TaskQuery): TaskPage;
  /** Never waits for a peer. */
  cancel(id: string): TaskSnapshot;
  decisions(id: string): readonly TaskDecision[];
  /** Calls `listener` on every change; returns the unsubscribe. */
  watch(listener: (task: TaskSnapshot) => void): () => void;
}
