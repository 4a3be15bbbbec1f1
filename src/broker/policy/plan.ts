/**
 * Which waiting tasks start now. The order, most urgent first:
 *
 * 1. urgent tasks: at their laxity the broker would be in danger from the start, or their latest start, with everybody
 *    who shares links and hosts in mind, has nearly come; by latest start;
 * 2. the others by priority; among equals what is late by its deadline first, then by latest start, then by age. A task without a deadline gains a priority for
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
import { type Millis, millis } from '../../leaves/units.js';
import { type Candidate, candidateOf, inOrder } from './candidate.js';
import { byDeadline, type Demand } from './demand.js';
import type { Turns } from './fluid-schedule.js';
import { hotLinks } from './hot-links.js';
import { latestStarts } from './latest-start.js';
import { Places } from './places.js';
import { Promises } from './promises.js';
import { type Circumstances, propose } from './proposal.js';
import type { PlanInput, PlanStep, PlanTask } from './task.js';

/**
 * Tasks that are tried one by one in a round where promises are at stake: so many that come first, and as many of the others,
 * which take turns.
 */
const TRIALS_MAX = 4;
/** How long a turn is: what is found out about a task changes no more often. */
const TRIALS_PERIOD = millis(10_000);
/** After this many rounds of repair everything goes strictly by deadline. */
const ROUNDS_MAX = 4;

/** One step for each waiting task. The order of `input.tasks` does not matter. */
export const plan = (input: PlanInput): readonly PlanStep[] => {
  const { now, limits, loads } = input;
  const { routed, astray } = withRoutes(input);
  const promises = new Promises(routed, input);
  const latest = latestStarts(promises.demands, limits);
  const { free } = promises;
  const candidates = free
    .filter(({ task }) => task.state === 'waiting')
    .map((demand) => candidateOf(demand, latest.get(demand.task.id) ?? Number.POSITIVE_INFINITY, now))
    .sort(inOrder);
  const hot = hotLinks(loads, free);

  const strict = new Set<string>();
  const isDue = ({ task }: Candidate): boolean => strict.has(task.id) && promises.isDue(task);
  for (let round = 0; ; round++) {
    const due = candidates.filter(isDue);
    const order = [...due, ...candidates.filter((candidate) => !isDue(candidate))];
    const proposed = (endangers: Circumstances['endangers']): PlanStep[] =>
      propose(order, {
        ...{ now, hot, strict, endangers },
        places: new Places(free, now),
        turns: promises.schedule,
      });
    const asking: PlanTask[] = [];
    let steps = proposed((task) => {
      asking.push(task);
      return UNTRIED;
    });
    if (asking.length > 0) steps = proposed(tryOut(promises, due, onTrial(asking, now)));
    const { victims, turns } = promises.outcome(steps);
    if (victims.length === 0 || round === ROUNDS_MAX)
      return [...steps.map((step) => withTurn(step, turns, now)), ...astray];
    const reach = round === ROUNDS_MAX - 1 ? candidates : neighbours(candidates, victims);
    for (const { task } of reach) strict.add(task.id);
  }
};

/** A task that waits is looked at again when its turn comes. */
const withTurn = (step: PlanStep, turns: Turns, now: Millis): PlanStep => {
  const turn = turns.get(step.id);
  if (step.action === 'start' || turn === undefined) return step;
  const until = turn > now ? Math.min(Math.ceil(turn), step.until ?? Number.POSITIVE_INFINITY) : step.until;
  return { ...step, turn: millis(turn), ...(until !== undefined && { until: millis(until) }) };
};

/** Tasks by deadline, and what to say to those that have no route. */
const withRoutes = ({ tasks, paths }: PlanInput): { routed: PlanTask[]; astray: PlanStep[] } => {
  const routed: PlanTask[] = [];
  const astray: PlanStep[] = [];
  for (const task of [...tasks].sort(byDeadline))
    try {
      paths.path(task.source, task.target);
      routed.push(task);
    } catch (error) {
      if (!(error instanceof MigrateFsError)) throw error;
      if (task.state === 'waiting')
        astray.push({ id: task.id, action: 'wait', cause: 'route', reason: error.message });
    }
  return { routed, astray };
};

const UNTRIED = 'others are tried before it';

const onTrial = (asking: readonly PlanTask[], now: Millis): ReadonlySet<PlanTask> => {
  const others = asking.slice(TRIALS_MAX);
  const from = (Math.floor(now / TRIALS_PERIOD) * TRIALS_MAX) % Math.max(1, others.length);
  const turn = [...others.slice(from), ...others.slice(0, from)].slice(0, TRIALS_MAX);
  return new Set([...asking.slice(0, TRIALS_MAX), ...turn]);
};

/** Tries one task after the other beside those that are due and those that were tried well before. */
const tryOut = (
  promises: Promises,
  due: readonly Candidate[],
  trial: ReadonlySet<PlanTask>,
): Circumstances['endangers'] => {
  const starting = ({ id }: PlanTask): PlanStep => ({ id, action: 'start', reason: '' });
  const going = due.map(({ task }) => starting(task));
  return (task) => {
    if (!trial.has(task)) return UNTRIED;
    const [victim] = promises.outcome([...going, starting(task)]).victims;
    if (victim) return `${victim.task.id} would miss its deadline`;
    going.push(starting(task));
    return undefined;
  };
};

/** The victims, and who shares a host or link with one of them. */
const neighbours = (candidates: readonly Candidate[], victims: readonly Demand[]): readonly Candidate[] => {
  const shared = new Set(victims.flatMap(({ places }) => places.map(({ key }) => key)));
  return candidates.filter(({ demand }) => demand.places.some(({ key }) => shared.has(key)));
};
