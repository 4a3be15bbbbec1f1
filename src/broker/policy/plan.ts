/**
 * Which waiting tasks start now. The order, most urgent first:
 *
 * 1. tasks that are urgent: at their laxity the broker would be in danger from the start, or their latest start, with
 *    everybody who shares links and hosts in mind, has nearly come; by latest start;
 * 2. the others by priority; among equals by latest start, then by age. A task without a deadline gains a priority for
 *    each `AGEING` that it waits, up to one above the highest.
 *
 * A task starts unless its window has not come, its path is hot and its laxity allows to wait, its hosts or links have
 * no free place, or a free place has to be kept for a task whose latest start comes before this one would end.
 */
import { formatDuration, formatInstant } from '../../leaves/duration.js';
import { MigrateFsError } from '../../leaves/errors.js';
import type { LinkLoad } from '../../leaves/hot-spots.js';
import { formatRate } from '../../leaves/quantity.js';
import type { Millis } from '../../leaves/units.js';
import { millis } from '../../leaves/units.js';
import { type Demand, demandOf } from './demand.js';
import { latestStarts } from './latest-start.js';
import { Places } from './places.js';
import type { PlanInput, PlanStep, PlanTask } from './task.js';

/** A start is decided this long before it is due. */
const MARGIN = millis(10_000);
/** What waits without a deadline gains one priority in this time. */
export const AGEING = millis(600_000);
const PRIORITY_MAX = 9;
/** A task without a deadline is not postponed for longer than this by heat. */
export const POSTPONED_MAX = millis(3_600_000);
/** The part of a link that others have to use for it to be theirs. */
const OTHERS_SHARE = 0.1;

interface Candidate {
  readonly task: PlanTask;
  readonly demand: Demand;
  /** `Infinity` without a deadline. */
  readonly latestStart: number;
  /** Up to here it may wait for its path to cool. */
  readonly patience: number;
  readonly urgent: boolean;
  readonly priority: number;
}

/** As a broker sees it: time to the deadline divided by time left. */
const ratioOf = ({ task, demand }: Pick<Candidate, 'task' | 'demand'>, now: Millis): number | undefined =>
  task.deadline === undefined ? undefined : (task.deadline - now) / demand.duration;

const waitedFrom = (task: PlanTask): number => Math.max(task.submittedAt, task.notBefore ?? 0);

const candidateOf = (task: PlanTask, demand: Demand, latestStart: number, now: Millis): Candidate => {
  const { danger, important } = task.terms;
  const calmUntil =
    task.deadline === undefined ? Number.POSITIVE_INFINITY : task.deadline - danger * demand.duration;
  const due = Math.min(latestStart - MARGIN, calmUntil);
  const aged = Math.min(
    PRIORITY_MAX + 1,
    task.priority + Math.floor(Math.max(0, now - waitedFrom(task)) / AGEING),
  );
  return {
    task,
    demand,
    latestStart,
    patience: important
      ? 0
      : Math.min(due, task.deadline === undefined ? waitedFrom(task) + POSTPONED_MAX : due),
    urgent: task.deadline !== undefined && (important || due <= now),
    priority: task.deadline !== undefined ? task.priority : important ? PRIORITY_MAX + 1 : aged,
  };
};

/** Finite, so that two of them compare as equal. */
const LAST = Number.MAX_VALUE;

const inOrder = (a: Candidate, b: Candidate): number =>
  Number(b.urgent) - Number(a.urgent) ||
  (a.urgent ? 0 : b.priority - a.priority) ||
  Math.min(a.latestStart, LAST) - Math.min(b.latestStart, LAST) ||
  a.task.submittedAt - b.task.submittedAt ||
  (a.task.id < b.task.id ? -1 : 1);

/** Links that somebody else than migrations fills, by name. */
const hotLinks = (input: PlanInput): ReadonlyMap<string, LinkLoad> => {
  const ours = new Map<string, number>();
  for (const task of input.tasks)
    if (task.state === 'running')
      for (const { name } of pathOf(task, input) ?? [])
        ours.set(name, (ours.get(name) ?? 0) + (task.netRate ?? 0));
  const hot = new Map<string, LinkLoad>();
  for (const load of input.loads) {
    const others = load.rate === undefined ? undefined : load.rate - (ours.get(load.link) ?? 0);
    const isTheirs =
      others === undefined ? load.hot : others > OTHERS_SHARE * (load.capacity ?? load.rate ?? 0);
    if ((load.hot || load.saturated) && isTheirs && !hot.has(load.link)) hot.set(load.link, load);
  }
  return hot;
};

const pathOf = (task: PlanTask, { paths }: PlanInput): readonly { readonly name: string }[] | undefined => {
  try {
    return paths.path(task.source, task.target);
  } catch {
    return undefined;
  }
};

const heatWords = ({ link, rate, capacity, source }: LinkLoad): string => {
  const carries =
    rate === undefined
      ? ''
      : `${formatRate(rate)}${capacity === undefined ? '' : ` of ${formatRate(capacity)}`}, `;
  return `${link} is hot (${carries}${source})`;
};

/** One step for each waiting task, in the order in which they were considered. */
export const plan = (input: PlanInput): readonly PlanStep[] => {
  const { now, limits, paths } = input;
  const instant = (at: number): string => formatInstant(millis(at), now);
  const steps: PlanStep[] = [];
  const demands: Demand[] = [];
  for (const task of input.tasks) {
    try {
      const free = demandOf(task, paths, limits.share, 'free');
      demands.push(
        free.copying === Number.POSITIVE_INFINITY ? demandOf(task, paths, limits.share, 'limited') : free,
      );
    } catch (error) {
      if (!(error instanceof MigrateFsError)) throw error;
      if (task.state === 'waiting')
        steps.push({ id: task.id, action: 'wait', cause: 'route', reason: error.message });
    }
  }
  steps.sort((a, b) => (a.id < b.id ? -1 : 1));
  const latest = latestStarts(demands, limits);
  const candidates = demands
    .filter(({ task }) => task.state === 'waiting')
    .map((demand) =>
      candidateOf(demand.task, demand, latest.get(demand.task.id) ?? Number.POSITIVE_INFINITY, now),
    )
    .sort(inOrder);
  const places = new Places(demands, latest, limits, now);
  const hot = hotLinks(input);

  const decide = (candidate: Candidate): PlanStep => {
    const { task, demand, latestStart, patience } = candidate;
    const { id } = task;
    const ratio = ratioOf(candidate, now);
    const laxity = ratio === undefined ? 'no deadline' : `laxity ${ratio.toFixed(1)}`;
    if (task.notBefore !== undefined && task.notBefore > now)
      return {
        id,
        action: 'wait',
        cause: 'window',
        reason: `its window opens ${instant(task.notBefore)}, in ${formatDuration(task.notBefore - now)}`,
        until: task.notBefore,
      };
    const taken = places.taken(demand);
    if (taken)
      return {
        id,
        action: 'wait',
        cause: taken.byStarted ? 'order' : 'busy',
        reason: `${taken.words}; ${laxity}`,
      };
    const heat = demand.path.map(({ name }) => hot.get(name)).find((load) => load !== undefined);
    if (heat && patience > now)
      return {
        id,
        action: 'wait',
        cause: 'hot',
        reason: `${heatWords(heat)}: ${laxity}, waits until ${instant(patience)} at the latest`,
        until: millis(patience),
      };
    const kept = latestStart > now ? places.keptFor(demand) : undefined;
    if (kept)
      return {
        id,
        action: 'wait',
        cause: 'order',
        reason: `the last place of ${kept.where} is kept for ${kept.task.id}, which has to start by ${instant(kept.by)}; ${laxity}`,
        until: millis(kept.by),
      };
    places.start(demand);
    const window = heat ? `although ${heatWords(heat)}, ` : '';
    const due =
      latestStart === Number.POSITIVE_INFINITY ? '' : `, latest start ${instant(Math.max(0, latestStart))}`;
    return {
      id,
      action: 'start',
      reason: `starts ${window}${candidate.urgent ? 'as urgent' : `at priority ${candidate.priority}`}: ${laxity}${due}, about ${formatDuration(demand.duration)} at ${formatRate(demand.rate)}`,
    };
  };
  return [...candidates.map(decide), ...steps];
};
