import type { Clock } from '../../leaves/clock.js';
import type { HotSpots } from '../../leaves/hot-spots.js';
import { isTaskFinal } from '../../leaves/scheduler.js';
import type { Millis } from '../../leaves/units.js';
import { bytes, millis } from '../../leaves/units.js';
import type { Admission, Paths, PlanInput, PlanLimits, PlanStep, PlanTask } from '../policy/task.js';
import { completeTerms } from '../terms.js';
import { retryAfter } from './run-context.js';
import type { Task, TaskOrder } from './task.js';
import type { TaskBook } from './task-book.js';

export interface PlannerOptions {
  readonly book: TaskBook;
  readonly clock: Clock;
  readonly paths: Paths;
  readonly hotSpots: HotSpots;
  readonly plan: (input: PlanInput) => readonly PlanStep[];
  readonly admit: (candidate: PlanTask, input: PlanInput) => Admission;
  readonly limits: PlanLimits;
  readonly vmmTime: Millis;
}

/** Asks the pure policy: shows it the queue, and remembers what it has to be told the next time. */
export class Planner {
  readonly #options: PlannerOptions;
  /** When waiting tasks start by the newest schedule that keeps every promise; after a restart it is made anew. */
  #turns: ReadonlyMap<string, Millis> = new Map();
  /** Since when tasks are known to be in sync. */
  #synced: ReadonlyMap<string, Millis> = new Map();

  constructor(options: PlannerOptions) {
    this.#options = options;
  }

  /** Of an order that is not in the queue. */
  admit(order: TaskOrder): Admission {
    return this.#options.admit(this.#candidateOf(order), this.#input());
  }

  /** The order that was admitted is task `id` of the queue now. */
  admitted(id: string, { turns }: Admission): void {
    if (turns) this.#turns = new Map([...turns].map(([of, turn]) => [of === '' ? id : of, turn]));
  }

  /** One for each waiting task. */
  plan(): readonly PlanStep[] {
    const input = this.#input();
    if (!input.tasks.some(({ state }) => state === 'waiting')) return [];
    const steps = this.#options.plan(input);
    this.#turns = new Map(
      steps.flatMap((step) =>
        step.action === 'wait' && step.turn !== undefined ? [[step.id, step.turn]] : [],
      ),
    );
    return steps;
  }

  #input(): PlanInput {
    const { book, clock, paths, hotSpots, limits } = this.#options;
    const now = clock.wall();
    const tasks: PlanTask[] = [];
    for (const task of book.all) {
      if (isTaskFinal(task.state.kind)) continue;
      const planned = this.#planTaskOf(task, now);
      const retryAt = retryAfter(task.state, now);
      // It keeps its promise and its place in the order: others are admitted and started with it in mind.
      tasks.push(
        retryAt === undefined
          ? planned
          : { ...planned, notBefore: millis(Math.max(retryAt, planned.notBefore ?? 0)) },
      );
    }
    this.#synced = new Map(
      tasks.flatMap(({ id, syncedAt }) => (syncedAt === undefined ? [] : [[id, syncedAt]])),
    );
    return { now, tasks, paths, loads: hotSpots.loads(), limits };
  }

  #planTaskOf(task: Task, now: Millis): PlanTask {
    const { kind } = task.state;
    const progress = this.#options.book.progressOf(task.id);
    const turn = this.#turns.get(task.id);
    const copied = kind === 'handing-over' || kind === 'finishing' || kind === 'rolling-back';
    return {
      ...this.#candidateOf(task),
      id: task.id,
      submittedAt: task.submittedAt,
      ...(copied
        ? { left: bytes(0), syncedAt: this.#synced.get(task.id) ?? now }
        : progress && { left: progress.bytesLeft }),
      ...(progress && { dirtyRate: progress.dirtyRate, netRate: progress.netRate }),
      ...(turn !== undefined && { turn }),
      state: kind === 'waiting' ? 'waiting' : 'running',
    };
  }

  #candidateOf(order: TaskOrder): PlanTask {
    const { danger, warning, important, notBefore, deadline, late } = order;
    const { vmmTime, clock } = this.#options;
    return {
      id: '',
      source: order.source,
      target: order.target,
      left: order.bytesTotal,
      allocated: order.bytesTotal,
      dirtyRate: order.writeRate,
      writeRate: order.writeRate,
      terms: completeTerms({ danger, warning, important, vmmTime }),
      submittedAt: clock.wall(),
      ...(notBefore !== undefined && { notBefore }),
      // One that cannot be met is no promise that others have to make room for.
      ...(deadline !== undefined && (late ? { late } : { deadline })),
      priority: order.priority,
      state: 'waiting',
    };
  }
}
