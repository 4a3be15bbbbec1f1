/** Who starts and who waits, and why, with the order of starting and the places given. */
import { formatDuration, formatInstant } from '../../leaves/duration.js';
import { formatRate } from '../../leaves/quantity.js';
import type { Millis } from '../../leaves/units.js';
import { millis } from '../../leaves/units.js';
import type { Candidate } from './candidate.js';
import type { Times } from './fluid-schedule.js';
import { type HotLinks, heatWords } from './hot-links.js';
import type { Places } from './places.js';
import type { PlanStep, PlanTask } from './task.js';

type Wait = Extract<PlanStep, { readonly action: 'wait' }>;

export interface Circumstances {
  readonly now: Millis;
  /** Occupied by what this proposal starts. */
  readonly places: Places;
  readonly hot: HotLinks;
  /**
   * Tasks around which a promise is at stake: with a deadline they start when their turn comes, without one as far as
   * `endangers` finds nobody.
   */
  readonly strict: ReadonlySet<string>;
  readonly turns: ReadonlyMap<string, Times>;
  /** Whose promise would be broken if the task started now, in words. */
  endangers(task: PlanTask): string | undefined;
}

const laxityWords = ({ ratio, task }: Candidate): string => {
  if (task.late) return 'its deadline cannot be met';
  return ratio === undefined ? 'no deadline' : `laxity ${ratio.toFixed(1)}`;
};

/** In the order of `candidates`, each finding what those before it have left. */
export const propose = (candidates: readonly Candidate[], around: Circumstances): PlanStep[] =>
  candidates.map((candidate) => obstacle(candidate, around) ?? start(candidate, around));

const start = (candidate: Candidate, { now, places, hot }: Circumstances): PlanStep => {
  const { demand, latestStart, urgent, priority } = candidate;
  places.start(demand);
  const heat = heatOf(candidate, hot);
  const although = heat ? `although ${heatWords(heat)}, ` : '';
  const rank = urgent ? 'as urgent' : `at priority ${priority}`;
  const due =
    latestStart === Number.POSITIVE_INFINITY
      ? ''
      : `, latest start ${formatInstant(millis(Math.max(0, latestStart)), now)}`;
  return {
    id: candidate.task.id,
    action: 'start',
    reason:
      `starts ${although}${rank}: ${laxityWords(candidate)}${due}, ` +
      `about ${formatDuration(demand.duration)} at ${formatRate(demand.rate)}`,
  };
};

const heatOf = ({ demand }: Candidate, hot: HotLinks) =>
  demand.path.map(({ name }) => hot.get(name)).find((load) => load !== undefined);

const obstacle = (candidate: Candidate, around: Circumstances): Wait | undefined => {
  const { now, places, hot } = around;
  const { task, demand, patience } = candidate;
  const instant = (at: number): string => formatInstant(millis(Math.max(0, at)), now);
  const laxity = laxityWords(candidate);
  const wait = (cause: Wait['cause'], reason: string, until = Number.POSITIVE_INFINITY): Wait => ({
    id: task.id,
    action: 'wait',
    cause,
    reason: cause === 'window' ? reason : `${reason}; ${laxity}`,
    ...(until > now && until < Number.POSITIVE_INFINITY && { until: millis(Math.ceil(until)) }),
  });
  if (task.notBefore !== undefined && task.notBefore > now)
    return wait(
      'window',
      `its window opens ${instant(task.notBefore)}, in ${formatDuration(task.notBefore - now)}`,
      task.notBefore,
    );
  const taken = places.taken(demand);
  if (taken) return wait(taken.byStarted ? 'order' : 'busy', taken.words);
  const strict = around.strict.has(task.id);
  const heat = heatOf(candidate, hot);
  if (heat && patience > now && !(strict && task.deadline !== undefined))
    return wait('hot', `${heatWords(heat)}, waits until ${instant(patience)} at the latest`, patience);
  if (task.deadline === undefined) {
    const kept = places.keptFor(demand);
    if (kept)
      return wait(
        'order',
        `a place of ${kept.where} is kept for ${kept.task.id}, which has to start by ${instant(kept.by)}`,
        kept.by,
      );
  } else if (strict) {
    const turn = around.turns.get(task.id)?.start ?? Number.POSITIVE_INFINITY;
    if (turn <= now) return undefined;
    // Too late anyway, by what was promised: whatever is left for it is better than none.
    if (candidate.latestStart > now)
      return wait(
        'order',
        turn === Number.POSITIVE_INFINITY
          ? 'earlier deadlines take its path'
          : `earlier deadlines come first, its turn comes ${instant(turn)}`,
        turn,
      );
  }
  const endangered = strict ? around.endangers(task) : undefined;
  return endangered === undefined ? undefined : wait('order', endangered);
};
