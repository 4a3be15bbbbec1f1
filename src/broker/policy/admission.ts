/**
 * Whether a task can be promised its deadline: Expression 1 of the paper with what is left instead of the whole disk,
 * `left / (net - dirty) + VMM_time <= deadline - start`, and the same for it among the tasks that have a promise.
 */
import { formatDuration, formatInstant } from '../../leaves/duration.js';
import { MigrateFsError } from '../../leaves/errors.js';
import { formatRate, formatSizeBesideRates } from '../../leaves/quantity.js';
import type { Millis } from '../../leaves/units.js';
import { millis } from '../../leaves/units.js';
import { byDeadline, type Demand, demandOf, dirtyRateOf, type Guest, releaseOf } from './demand.js';
import { fluidSchedule, type Turns, turnsOf } from './fluid-schedule.js';
import { givenTurns, lateness, leastLate, type Schedule } from './promises.js';
import type { Admission, PlanInput, PlanTask } from './task.js';

/** What rounding may make of an end. */
const TOLERANCE = 1;
/** Names in a line; the rest is counted. */
const NAMES_MAX = 3;

/** Deadlines that are offered are read by people in seconds. */
const wholeSecond = (at: number): number => Math.ceil(at / 1000) * 1000;

const isLate = (end: number, deadline: number | undefined): boolean =>
  deadline !== undefined && !(end <= deadline + TOLERANCE);

const some = (names: readonly string[]): string =>
  names.length <= NAMES_MAX
    ? names.join(', ')
    : `${names.slice(0, NAMES_MAX).join(', ')} and ${names.length - NAMES_MAX} more`;

/**
 * Admitted tasks that have a path, by deadline; those without one only where they run, because they hold places.
 */
const others = (input: PlanInput, candidate: PlanTask): PlanTask[] =>
  input.tasks
    .filter((task) => {
      if (task.id === candidate.id || (task.deadline === undefined && task.state === 'waiting')) return false;
      try {
        return input.paths.path(task.source, task.target).length > 0;
      } catch (error) {
        if (error instanceof MigrateFsError) return false;
        throw error;
      }
    })
    .sort(byDeadline);

/** What is admitted, and the schedule that keeps its promises without the candidate. */
interface Admitted {
  readonly tasks: readonly PlanTask[];
  readonly turns: Turns;
  /** With guests limited: nobody is to blame for what is late here, unless it becomes later. */
  readonly before: Schedule;
}

const admittedBeside = (candidate: PlanTask, input: PlanInput): Admitted => {
  const { paths, limits, now } = input;
  const tasks = others(input, candidate);
  const turns = givenTurns(tasks);
  const demands = tasks.map((task) => demandOf(task, paths, limits, 'limited'));
  const before = leastLate(demands, [() => fluidSchedule(demands, limits, now)], () =>
    fluidSchedule(demands, limits, now, turns),
  );
  return { tasks, turns, before };
};

interface Trial {
  readonly guest: Guest;
  readonly demand: Demand;
  readonly times: Schedule;
  readonly end: number;
  /** Admitted tasks that would miss their deadlines. */
  readonly endangered: readonly PlanTask[];
}

/** `turns`: of those that have one; the others start where they fit. */
const attempt = (
  candidate: PlanTask,
  { tasks, before }: Admitted,
  input: PlanInput,
  own: Guest,
  guest: Guest,
  turns?: Turns,
): Trial => {
  const { paths, limits, now } = input;
  const demand = demandOf(candidate, paths, limits, own);
  const demands = [...tasks.map((task) => demandOf(task, paths, limits, guest)), demand];
  const times = fluidSchedule(demands, limits, now, turns);
  // The turns are what is kept of it: guests that are limited in the end must not upset them.
  const limited = [...tasks, candidate].map((task) => demandOf(task, paths, limits, 'limited'));
  const kept = demands.every(({ dirty }, at) => dirty === limited[at]!.dirty)
    ? times
    : fluidSchedule(limited, limits, now, turnsOf(times));
  const endangered = tasks.filter((task) =>
    [times, kept].some(
      (schedule) =>
        isLate(schedule.get(task.id)!.end, task.deadline) &&
        lateness(task, schedule) > lateness(task, before) + TOLERANCE,
    ),
  );
  const end = Math.max(times.get(candidate.id)!.end, kept.get(candidate.id)!.end);
  return { guest: own, demand, times, end, endangered };
};

/** Without a deadline there is nothing to miss, and what has one goes first. */
const meets = ({ endangered, end, demand: { task } }: Trial): boolean =>
  task.deadline === undefined
    ? end !== Number.POSITIVE_INFINITY
    : endangered.length === 0 && !isLate(end, task.deadline);

/** `42.9 GB at 117 MB/s less 30.0 MB/s dirtied = 8m13s + 10 s for the VM = 8m23s` */
const sum = ({ task, rate, dirty, copying, duration }: Demand): string => {
  const less = dirty > 0 ? ` less ${formatRate(dirty)} dirtied` : '';
  return (
    `${formatSizeBesideRates(task.left)} at ${formatRate(rate)}${less} = ${formatDuration(copying)} ` +
    `+ ${formatDuration(task.terms.vmmTime)} for the VM = ${formatDuration(duration)}`
  );
};

const limitedWords = (task: PlanTask): string =>
  `with its writes limited to ${formatRate(task.terms.diskFloor)}`;

/** Whether limiting its guest's writes changes anything. */
const isLimitable = (task: PlanTask): boolean => dirtyRateOf(task, 'limited') < dirtyRateOf(task, 'free');

/**
 * The earliest deadline that the candidate could be promised: the first that endangers nobody, where a later one means
 * a later turn. Confirmed by a last trial; undefined where none is.
 */
const earliestDeadline = (candidate: PlanTask, admitted: Admitted, input: PlanInput): Millis | undefined => {
  const by = (deadline: number): Trial =>
    attempt({ ...candidate, deadline: millis(deadline) }, admitted, input, 'limited', 'limited');
  const turns = [...new Set(admitted.tasks.flatMap(({ deadline }) => deadline ?? []))].sort((a, b) => a - b);
  const last = by(Math.max(input.now, ...turns) + 1);
  if (last.endangered.length > 0 || last.end === Number.POSITIVE_INFINITY) return undefined;
  // The lowest turn that endangers nobody: behind the first `low` deadlines.
  let low = 0;
  let high = turns.length;
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    const deadline = middle === 0 ? input.now : turns[middle - 1]! + 1;
    if (by(deadline).endangered.length === 0) high = middle;
    else low = middle + 1;
  }
  let deadline: number = low === 0 ? input.now : turns[low - 1]! + 1;
  // A later deadline may give a later turn, and so a later end.
  for (let turn = low; turn <= turns.length; turn++) {
    const trial = by(deadline);
    if (meets(trial)) return millis(deadline);
    deadline = Math.max(deadline, wholeSecond(trial.end));
  }
  for (const offer of [deadline, wholeSecond(last.end)]) if (meets(by(offer))) return millis(offer);
  return undefined;
};

const waitingTurns = (tasks: readonly PlanTask[], times: Schedule): ReadonlyMap<string, Millis> => {
  const starts = turnsOf(times);
  const waiting = tasks.filter(({ state, deadline }) => state === 'waiting' && deadline !== undefined);
  return new Map(
    waiting.flatMap(({ id }) => (starts.has(id) ? [[id, millis(starts.get(id)!)] as const] : [])),
  );
};

const refused = (arithmetic: string): Admission => ({ feasible: false, arithmetic });

/** Answers for `candidate` beside what `input` has admitted; its own task there, if any, is left out. */
export const admit = (candidate: PlanTask, input: PlanInput): Admission => {
  const { now, paths, limits } = input;
  const { deadline } = candidate;
  const instant = (at: number): string => formatInstant(millis(Math.round(at / 1000) * 1000), now);
  const start = releaseOf(candidate, now);
  let limited: Demand;
  try {
    limited = demandOf(candidate, paths, limits, 'limited');
  } catch (error) {
    if (error instanceof MigrateFsError) return refused(error.message);
    throw error;
  }
  if (deadline !== undefined && deadline <= now)
    return refused(`the deadline ${instant(deadline)} is ${formatDuration(now - deadline)} in the past`);
  if (deadline !== undefined && start >= deadline)
    return refused(`may not start before ${instant(start)}, and the deadline is ${instant(deadline)}`);
  if (limited.copying === Number.POSITIVE_INFINITY)
    return refused(
      `never in sync: ${formatRate(limited.dirty)} dirtied${isLimitable(candidate) ? ` ${limitedWords(candidate)}` : ''}, ` +
        `and ${limited.narrowest.name} carries ${formatRate(limited.rate)}`,
    );

  const admitted = admittedBeside(candidate, input);
  const first = attempt(candidate, admitted, input, 'free', 'free');
  const trials = [
    () => first,
    () => attempt(candidate, admitted, input, 'limited', 'free'),
    () => attempt(candidate, admitted, input, 'limited', 'limited'),
    () => attempt(candidate, admitted, input, 'limited', 'limited', admitted.turns),
  ];
  let trial = first;
  let last = 0;
  for (const [index, run] of trials.entries()) {
    trial = run();
    last = index;
    if (meets(trial)) break;
  }
  const { demand } = trial;
  const alone = start + demand.duration;
  const latest = deadline === undefined ? undefined : deadline - demand.duration;
  const known = {
    ...(trial.end !== Number.POSITIVE_INFINITY && { finish: millis(trial.end) }),
    ...(latest !== undefined && latest >= 0 && { latestStart: millis(latest) }),
  };
  const words: string[] = [
    `${sum(demand)}${trial.guest === 'limited' && isLimitable(candidate) ? ` ${limitedWords(candidate)}` : ''}`,
  ];
  if (start > now) words.push(`not before ${instant(start)}`);
  if (meets(trial) || deadline === undefined) {
    words.push(
      trial.end === Number.POSITIVE_INFINITY
        ? 'ends when others leave it its path'
        : `ends ${instant(trial.end)}`,
    );
    if (trial.end > alone + TOLERANCE) words.push(`with its turn among ${admitted.tasks.length} admitted`);
    if (last >= 2) words.push('the writes of admitted guests are limited as well');
    words.push(
      deadline === undefined
        ? 'no deadline'
        : `the deadline is ${instant(deadline)}: ${formatDuration(deadline - trial.end)} to spare`,
    );
    return {
      feasible: true,
      arithmetic: words.join(', '),
      ...known,
      ...(trial.guest === 'limited' && (isLimitable(candidate) || last >= 2) && { writesLimited: true }),
      ...(deadline !== undefined && { turns: waitingTurns([...admitted.tasks, candidate], trial.times) }),
    };
  }

  const tooLate = (end: number, by: number): string =>
    end === Number.POSITIVE_INFINITY ? 'never' : `${formatDuration(end - by)} too late`;
  if (deadline !== undefined && isLate(alone, deadline))
    words.push(`ends ${instant(alone)}; the deadline is ${instant(deadline)}: ${tooLate(alone, deadline)}`);
  else if (deadline !== undefined && isLate(trial.end, deadline)) {
    const before = admitted.tasks.filter((task) => task.deadline !== undefined && task.deadline <= deadline);
    words.push(
      `alone it would end ${instant(alone)}, beside what is admitted${before.length > 0 ? ` (earlier: ${some(before.map(({ id }) => id))})` : ''} ` +
        `${trial.end === Number.POSITIVE_INFINITY ? 'never' : instant(trial.end)}; the deadline is ${instant(deadline)}: ${tooLate(trial.end, deadline)}`,
    );
  } else {
    const worst = trial.endangered[0]!;
    words.push(
      `would end ${instant(trial.end)}, but ${some(trial.endangered.map(({ id }) => id))} would miss: ` +
        `${worst.id} ${tooLate(trial.times.get(worst.id)!.end, worst.deadline!)}`,
    );
  }
  const earliest = deadline === undefined ? undefined : earliestDeadline(candidate, admitted, input);
  const remedy =
    deadline === undefined
      ? ''
      : earliest === undefined
        ? '. No deadline is feasible now'
        : `. Earliest feasible deadline ${instant(earliest)}`;
  return {
    feasible: false,
    arithmetic: words.join(', ') + remedy,
    ...known,
    ...(earliest !== undefined && { earliestDeadline: earliest }),
  };
};
