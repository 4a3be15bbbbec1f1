/**
 * Which waiting tasks start now. The order, most urgent first:
 *
 * 1. urgent tasks: at their laxity the broker would be in danger from the start, or their latest start, with everybody
 *    who shares links and hosts in mind, has nearly come; by latest start;
 * 2. the others by priority; among equals by latest start, then by age. A task without a deadline gains a priority for
 *    each `AGEING` that it waits, up to one above the highest.
 *
 * A task starts unless its window has not come, its hosts or links have no free place, its path is hot and its laxity
 * allows to wait, or a free place has to be kept for an earlier deadline that is due before this one would end.
 *
 * Priorities and waiting for heat to pass depart from *earliest deadline first*, by which deadlines were promised. So
 * what comes out is tried in a fluid schedule, and where it would break a promise, those around it start strictly in
 * the order of that schedule.
 */
import { MigrateFsError } from '../../leaves/errors.js';
import { type Candidate, candidateOf, inOrder } from './candidate.js';
import { type Demand, demandOf, type Guest } from './demand.js';
import { fluidSchedule, type Times } from './fluid-schedule.js';
import { hotLinks } from './hot-links.js';
import { latestStarts } from './latest-start.js';
import { Places } from './places.js';
import { propose } from './proposal.js';
import type { PlanInput, PlanStep, PlanTask } from './task.js';

/** What rounding may make of an end. */
const TOLERANCE = 1;
/** Tasks that are tried one by one where promises are at stake; the others wait for the next plan. */
const TRIALS_MAX = 8;
/** After this many rounds of repair everything goes strictly by deadline. */
const ROUNDS_MAX = 4;
const LAST = Number.POSITIVE_INFINITY;

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

/** One step for each waiting task. The order of `input.tasks` does not matter. */
export const plan = (input: PlanInput): readonly PlanStep[] => {
  const { now, limits, paths, loads } = input;
  const astray: PlanStep[] = [];
  const routed: PlanTask[] = [];
  for (const task of input.tasks)
    try {
      paths.path(task.source, task.target);
      routed.push(task);
    } catch (error) {
      if (!(error instanceof MigrateFsError)) throw error;
      if (task.state === 'waiting')
        astray.push({ id: task.id, action: 'wait', cause: 'route', reason: error.message });
    }

  const schedule = (demands: readonly Demand[]): Schedule =>
    fluidSchedule(demands.filter(counts), limits, now);
  const asIf = (guest: Guest) => {
    const demands = routed.map((task) => demandOf(task, paths, limits, guest));
    const promised = schedule(demands);
    return { demands, promised, late: routed.filter((task) => lateness(task, promised) > TOLERANCE).length };
  };
  // Guests are limited only where that saves a deadline.
  const free = asIf('free');
  const limited = free.late > 0 ? asIf('limited') : free;
  const { demands, promised } = limited.late < free.late ? limited : free;

  const latest = latestStarts(demands, limits);
  const candidates = demands
    .filter(({ task }) => task.state === 'waiting')
    .map((demand) => candidateOf(demand, latest.get(demand.task.id) ?? Number.POSITIVE_INFINITY, now))
    .sort(inOrder);
  const hot = hotLinks(loads, demands);

  /** Promises that these steps break, and that deadlines in their order would keep. */
  const broken = (steps: readonly PlanStep[]): readonly Demand[] => {
    const byId = new Map(steps.map((step) => [step.id, step]));
    const after = demands.map((demand) => {
      const step = byId.get(demand.task.id);
      if (step?.action === 'start') return started(demand);
      return step?.action === 'wait' && step.cause === 'hot' && step.until !== undefined
        ? { ...demand, task: { ...demand.task, notBefore: step.until } }
        : demand;
    });
    const outcome = schedule(after);
    return demands.filter(({ task }) => lateness(task, outcome) > lateness(task, promised) + TOLERANCE);
  };

  const strict = new Set<string>();
  const isDue = ({ task }: Candidate): boolean =>
    strict.has(task.id) && task.deadline !== undefined && (promised.get(task.id)?.start ?? LAST) <= now;
  let trials = 0;
  for (let round = 0; ; round++) {
    const going: PlanStep[] = candidates
      .filter(isDue)
      .map(({ task }) => ({ id: task.id, action: 'start', reason: '' }));
    const endangers = (task: PlanTask): string | undefined => {
      if (++trials > TRIALS_MAX) return `${TRIALS_MAX} others were tried before`;
      const trial: PlanStep = { id: task.id, action: 'start', reason: '' };
      const [victim] = broken([...going, trial]);
      if (victim) return `${victim.task.id} would miss its deadline`;
      going.push(trial);
      return undefined;
    };
    const ordered = [...candidates.filter(isDue), ...candidates.filter((candidate) => !isDue(candidate))];
    const steps = propose(ordered, {
      now,
      places: new Places(demands, now),
      hot,
      strict,
      turns: promised,
      endangers,
    });
    const victims = round === ROUNDS_MAX ? [] : broken(steps);
    if (victims.length === 0) return [...steps, ...astray];
    const reach = round === ROUNDS_MAX - 1 ? candidates : neighbours(candidates, victims);
    for (const { task } of reach) strict.add(task.id);
  }
};

/** The victims, and who shares a host or link with one of them. */
const neighbours = (candidates: readonly Candidate[], victims: readonly Demand[]): readonly Candidate[] => {
  const shared = new Set(victims.flatMap(({ places }) => places.map(({ key }) => key)));
  return candidates.filter(({ demand }) => demand.places.some(({ key }) => shared.has(key)));
};
