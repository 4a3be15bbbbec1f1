/** Tasks of the scheduler as text; pure, with the time as an argument. */
import { formatDuration } from '../leaves/duration.js';
import { formatRate, formatSize } from '../leaves/quantity.js';
import type { TaskDecision, TaskSnapshot } from '../leaves/scheduler.js';
import { isTaskFinal } from '../leaves/scheduler.js';
import type { Millis } from '../leaves/units.js';
import { table } from './render.js';

/** Characters of a reason in the table; the whole of it is shown with `tasks ID`. */
const REASON_MAX = 80;

const percent = ({ state, bytesTotal, bytesLeft }: TaskSnapshot): string => {
  if (state === 'handing-over' || state === 'finishing' || state === 'done') return '100%';
  if (bytesLeft === undefined || bytesTotal === 0) return '-';
  return `${Math.floor(Math.min(1, Math.max(0, 1 - bytesLeft / bytesTotal)) * 100)}%`;
};

const deadlineWords = ({ deadline, endedAt, state }: TaskSnapshot, now: Millis): string => {
  if (deadline === undefined) return '-';
  const left = deadline - (isTaskFinal(state) ? (endedAt ?? now) : now);
  return left < 0 ? `late ${formatDuration(-left)}` : `in ${formatDuration(left)}`;
};

const laxityWords = ({ laxity }: TaskSnapshot): string => (laxity === undefined ? '-' : laxity.toFixed(1));

const shortened = (text: string): string =>
  text.length <= REASON_MAX ? text : `${text.slice(0, REASON_MAX - 1)}…`;

export const taskTable = (tasks: readonly TaskSnapshot[], now: Millis): string =>
  tasks.length === 0
    ? 'no tasks'
    : table([
        ['ID', 'VM', 'FROM', 'TO', 'STATE', 'DONE', 'DEADLINE', 'LAXITY', 'PRIO', 'WHY'],
        ...tasks.map((task) => [
          task.id,
          task.vm,
          task.source,
          task.target,
          task.state,
          percent(task),
          deadlineWords(task, now),
          laxityWords(task),
          `${task.priority}${task.important ? '!' : ''}`,
          shortened(task.reason),
        ]),
      ]);

/** What its driver says of the VM; empty: nothing. */
const moveWords = ({ ramSent, ramLeft, vmDowntime }: TaskSnapshot): string =>
  [
    ...(ramSent === undefined ? [] : [`RAM ${formatSize(ramSent)} sent`]),
    ...(ramLeft === undefined ? [] : [`${formatSize(ramLeft)} left`]),
    ...(vmDowntime === undefined ? [] : [`stood still for ${formatDuration(vmDowntime)}`]),
  ].join(', ');

const instant = (at: Millis | undefined): string => (at === undefined ? '-' : new Date(at).toISOString());

export const taskDetails = (task: TaskSnapshot, decisions: readonly TaskDecision[], now: Millis): string => {
  const rows: (readonly [string, string])[] = [
    ['task', `${task.id}: ${task.vm} from ${task.source} to ${task.target}, driver ${task.driver}`],
    ['state', `${task.state}: ${task.reason}`],
    [
      'window',
      `not before ${instant(task.notBefore)}, deadline ${instant(task.deadline)} (${deadlineWords(task, now)})`,
    ],
    [
      'priority',
      `${task.priority}${task.important ? ', important' : ''}, danger ${task.danger}, warning ${task.warning}`,
    ],
    ['admission', `${task.late ? 'at its submitter’s insistence: ' : ''}${task.admission}`],
    [
      'progress',
      `${percent(task)} of ${formatSize(task.bytesTotal)}` +
        (task.netRate === undefined ? '' : `, ${formatRate(task.netRate)}`) +
        (task.laxity === undefined ? '' : `, laxity ${laxityWords(task)}`),
    ],
    ...(task.migrationId === undefined
      ? []
      : [['migration', `${task.migrationId} at ${task.source}, attempt ${task.attempt}`] as const]),
    ...(moveWords(task) === '' ? [] : [['VM', moveWords(task)] as const]),
    ...(task.error ? [['error', `${task.error.code}: ${task.error.message}`] as const] : []),
    ['images', task.images.join(', ')],
  ];
  const history = decisions.map(({ at, state, text, times, lastAt }) => [
    instant(at),
    state ?? '',
    times === undefined ? text : `${text} (${times} times, last at ${instant(lastAt)})`,
  ]);
  return `${table(rows)}\n\n${table(history)}`;
};

/** One line on where a task stands. */
export const taskLine = (task: TaskSnapshot, now: Millis): string =>
  [
    `${task.id} ${task.vm} ${task.state}${task.state === 'copying' ? ` ${percent(task)}` : ''}`,
    ...(task.deadline === undefined || isTaskFinal(task.state)
      ? []
      : [`deadline ${deadlineWords(task, now)}`]),
    ...(task.laxity === undefined ? [] : [`laxity ${laxityWords(task)}`]),
    ...(moveWords(task) === '' || isTaskFinal(task.state) ? [] : [moveWords(task)]),
    task.reason,
  ].join(', ');
