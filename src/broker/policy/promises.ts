/**
 * What tasks were promised, a timetable that keeps it, and what would break it.
 *
 * What carries the promises from one plan to the next is the timetable, not the way it was found: a new schedule is a
 * guess that may be worse than the one by which a task was admitted. So the turns of the last plan, or of admission, are
 * tried as well, and what they keep stays kept: if the network does as counted on, the rest of a timetable is one.
 */
import type { Millis } from '../../leaves/units.js';
import { type Demand, demandOf, type Guest } from './demand.js';
import { fluidSchedule, type Times, type Turns, turnsOf } from './fluid-schedule.js';
import type { PlanInput, PlanLimits, PlanStep, PlanTask } from './task.js';

/** What rounding may make of an end. */
const TOLERANCE = 1;

export type Schedule = ReadonlyMap<string, Times>;

/** Milliseconds after its deadline. */
export const lateness = ({ id, deadline }: PlanTask, schedule: Schedule): number =>
  deadline === undefined ? 0 : Math.max(0, (schedule.get(id)?.end ?? Number.POSITIVE_INFINITY) - deadline);

/** Those of `demands` that are later in `schedule` than in `before`. */
export const later = (demands: readonly Demand[], schedule: Schedule, before: Schedule): readonly Demand[] =>
  demands.filter(({ task }) => lateness(task, schedule) > lateness(task, before) + TOLERANCE);

export const lateIn = (demands: readonly Demand[], schedule: Schedule): readonly Demand[] =>
  demands.filter(({ task }) => lateness(task, schedule) > TOLERANCE);

/** Turns that waiting tasks with a deadline have. */
export const givenTurns = (tasks: readonly PlanTask[]): Turns =>
  new Map(
    tasks.flatMap(({ id, state, deadline, turn }) =>
      state === 'waiting' && deadline !== undefined && turn !== undefined ? [[id, turn]] : [],
    ),
  );

/**
 * The first of `schedules` that breaks nothing that `timetable` keeps. Where each does, the one in which the fewest are
 * late: rather the timetable, because others shift the delay to somebody else.
 */
export const leastLate = (
  demands: readonly Demand[],
  schedules: readonly (() => Schedule)[],
  timetable: () => Schedule,
): Schedule => {
  const made: { readonly schedule: Schedule; readonly late: readonly Demand[] }[] = [];
  for (const make of schedules) {
    const schedule = make();
    const late = lateIn(demands, schedule);
    if (late.length === 0) return schedule;
    made.push({ schedule, late });
  }
  const schedule = timetable();
  const late = new Set(lateIn(demands, schedule));
  const keeping = made.find((other) => other.late.every((demand) => late.has(demand)));
  return (
    keeping ??
    made.reduce((best, next) => (next.late.length < best.late.length ? next : best), {
      schedule,
      late: [...late],
    })
  ).schedule;
};

/** What is promised, and what holds places. */
const counts = ({ task }: Demand): boolean => task.deadline !== undefined || task.state === 'running';

/** With a guest that writes as it likes where that ever ends. */
const demandFor = (task: PlanTask, { paths, limits }: PlanInput, guest: Guest): Demand => {
  const demand = demandOf(task, paths, limits, guest);
  return demand.copying === Number.POSITIVE_INFINITY ? demandOf(task, paths, limits, 'limited') : demand;
};

const started = (demand: Demand): Demand => ({
  ...demand,
  task: { ...demand.task, state: 'running', allocated: demand.task.allocated ?? demand.task.left },
});

/** One way in which guests may write, and what the timetable comes to then. */
interface Assumption {
  readonly demands: readonly Demand[];
  readonly schedule: Schedule;
}

export interface Outcome {
  /** Those whose promises are broken, and that the timetable would keep. */
  readonly victims: readonly Demand[];
  /** Of the best timetable from there on. */
  readonly turns: Turns;
}

export class Promises {
  /** Of all tasks, with guests that write as they like. */
  readonly free: readonly Demand[];
  /** With guests limited if only that saves a deadline. */
  readonly demands: readonly Demand[];
  /** When each task starts and ends by the timetable, at worst with guests limited. */
  readonly schedule: Schedule;
  readonly #limits: PlanLimits;
  readonly #now: Millis;
  /** In all of them the timetable has to hold. */
  readonly #assumptions: readonly Assumption[];

  /** `tasks` have routes. */
  constructor(tasks: readonly PlanTask[], input: PlanInput) {
    this.#limits = input.limits;
    this.#now = input.now;
    const free = tasks.map((task) => demandFor(task, input, 'free'));
    this.free = free;
    const limited = tasks.map((task) => demandFor(task, input, 'limited'));
    const unlimited = this.#scheduleOf(free);
    const isSame = free.every(({ dirty }, at) => dirty === limited[at]!.dirty);
    const kept = isSame ? unlimited : this.#scheduleOf(limited, turnsOf(unlimited));
    this.schedule = leastLate(limited, [() => kept, () => this.#scheduleOf(limited)], () =>
      this.#scheduleOf(limited, givenTurns(tasks)),
    );
    const counted = { demands: limited, schedule: this.schedule };
    const isFree = this.schedule === kept && lateIn(free, unlimited).length <= lateIn(limited, kept).length;
    this.demands = isFree ? free : limited;
    this.#assumptions = isFree && !isSame ? [counted, { demands: free, schedule: unlimited }] : [counted];
  }

  /** Whether the turn of a task with a deadline has come. */
  isDue({ id, deadline }: PlanTask): boolean {
    return deadline !== undefined && (this.schedule.get(id)?.start ?? Number.POSITIVE_INFINITY) <= this.#now;
  }

  /** What these steps leave of the promises. */
  outcome(steps: readonly PlanStep[]): Outcome {
    const stepOf = new Map(steps.map((step) => [step.id, step]));
    const after = this.#assumptions.map(({ demands }) => demands.map((demand) => afterStep(demand, stepOf)));
    const outcomeOf = (turns: Turns): Outcome => {
      const schedules = after.map((demands) => this.#scheduleOf(demands, turns));
      const victims = this.#assumptions.flatMap(({ demands, schedule }, at) =>
        later(demands, schedules[at]!, schedule),
      );
      const byId = new Map(victims.map((victim) => [victim.task.id, victim]));
      return { victims: [...byId.values()], turns: turnsOf(schedules[0]!) };
    };
    const keeping = outcomeOf(turnsOf(this.schedule));
    if (keeping.victims.length === 0) return keeping;
    const others = after.map((demands) => outcomeOf(turnsOf(this.#scheduleOf(demands))));
    return [keeping, ...others].reduce((best, next) =>
      next.victims.length < best.victims.length ? next : best,
    );
  }

  #scheduleOf(demands: readonly Demand[], turns?: Turns): Schedule {
    return fluidSchedule(demands.filter(counts), this.#limits, this.#now, turns);
  }
}

const afterStep = (demand: Demand, steps: ReadonlyMap<string, PlanStep>): Demand => {
  const step = steps.get(demand.task.id);
  if (step?.action === 'start') return started(demand);
  return step?.action === 'wait' && step.cause === 'hot' && step.until !== undefined
    ? { ...demand, task: { ...demand.task, notBefore: step.until } }
    : demand;
};
