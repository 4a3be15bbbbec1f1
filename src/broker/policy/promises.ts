/** What tasks were promised, as the schedule of earliest deadlines keeps it from now on, and what would break it. */
import type { Millis } from '../../leaves/units.js';
import type { Demand } from './demand.js';
import { fluidSchedule, type Times } from './fluid-schedule.js';
import type { PlanLimits, PlanStep, PlanTask } from './task.js';

/** What rounding may make of an end. */
const TOLERANCE = 1;

type Schedule = ReadonlyMap<string, Times>;

/** Milliseconds after its deadline. */
const lateness = ({ id, deadline }: PlanTask, schedule: Schedule): number =>
  deadline === undefined ? 0 : Math.max(0, (schedule.get(id)?.end ?? Number.POSITIVE_INFINITY) - deadline);

/** What is promised, and what holds places. */
const counts = ({ task }: Demand): boolean => task.deadline !== undefined || task.state === 'running';

const started = (demand: Demand): Demand => ({
  ...demand,
  task: { ...demand.task, state: 'running', allocated: demand.task.allocated ?? demand.task.left },
});

export class Promises {
  readonly demands: readonly Demand[];
  /** When each task would start and end if deadlines alone decided. */
  readonly turns: Schedule;
  readonly #limits: PlanLimits;
  readonly #now: Millis;

  constructor(demands: readonly Demand[], limits: PlanLimits, now: Millis) {
    this.demands = demands;
    this.#limits = limits;
    this.#now = now;
    this.turns = fluidSchedule(demands.filter(counts), limits, now);
  }

  /** How many cannot be kept any more. */
  get lost(): number {
    return this.demands.filter(({ task }) => lateness(task, this.turns) > TOLERANCE).length;
  }

  /** Whether the turn of a task with a deadline has come. */
  isDue({ id, deadline }: PlanTask): boolean {
    return deadline !== undefined && (this.turns.get(id)?.start ?? Number.POSITIVE_INFINITY) <= this.#now;
  }

  /** Those that these steps break, and that deadlines in their order would keep. */
  broken(steps: readonly PlanStep[]): readonly Demand[] {
    const byId = new Map(steps.map((step) => [step.id, step]));
    const after = this.demands.map((demand) => {
      const step = byId.get(demand.task.id);
      if (step?.action === 'start') return started(demand);
      return step?.action === 'wait' && step.cause === 'hot' && step.until !== undefined
        ? { ...demand, task: { ...demand.task, notBefore: step.until } }
        : demand;
    });
    const outcome = fluidSchedule(after.filter(counts), this.#limits, this.#now);
    return this.demands.filter(
      ({ task }) => lateness(task, outcome) > lateness(task, this.turns) + TOLERANCE,
    );
  }
}
