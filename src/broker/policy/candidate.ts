/** A waiting task in the order of starting: what makes it urgent, what it may wait for. */
import type { Millis } from '../../leaves/units.js';
import { millis } from '../../leaves/units.js';
import type { Demand } from './demand.js';
import type { PlanTask } from './task.js';

/** A start is decided this long before it is due. */
const MARGIN = millis(10_000);
/** What waits without a deadline gains one priority in this time. */
export const AGEING = millis(600_000);
const PRIORITY_MAX = 9;
/** A task without a deadline is not postponed for longer than this by heat. */
export const POSTPONED_MAX = millis(3_600_000);
/** Finite, so that two of them compare as equal. */
const LAST = Number.MAX_VALUE;

export interface Candidate {
  readonly task: PlanTask;
  readonly demand: Demand;
  /** With everybody in mind who shares links and places; `Infinity` without a deadline. */
  readonly latestStart: number;
  /** Up to here it may wait for its path to cool. */
  readonly patience: number;
  /** Its broker would be in danger from the start, or its latest start has nearly come. */
  readonly urgent: boolean;
  readonly priority: number;
  /** As a broker sees it: time to the deadline divided by time left. Absent without a deadline. */
  readonly ratio?: number;
}

/** When its waiting began that it could have been spared. */
const waitedFrom = (task: PlanTask): number => Math.max(task.submittedAt, task.notBefore ?? 0);

export const candidateOf = (demand: Demand, latestStart: number, now: Millis): Candidate => {
  const { task, duration } = demand;
  const { deadline, terms } = task;
  if (deadline === undefined) {
    const aged = task.priority + Math.floor(Math.max(0, now - waitedFrom(task)) / AGEING);
    return {
      task,
      demand,
      latestStart: Number.POSITIVE_INFINITY,
      patience: terms.important || task.late ? 0 : waitedFrom(task) + POSTPONED_MAX,
      urgent: false,
      priority: terms.important ? PRIORITY_MAX + 1 : Math.min(PRIORITY_MAX + 1, aged),
    };
  }
  const due = Math.min(latestStart - MARGIN, deadline - terms.danger * duration);
  return {
    task,
    demand,
    latestStart,
    patience: terms.important ? 0 : due,
    urgent: terms.important || due <= now,
    priority: task.priority,
    ratio: (deadline - now) / Math.max(duration, 1),
  };
};

/** The order that the head of `plan.ts` describes; total, so that the order of the input does not matter. */
export const inOrder = (a: Candidate, b: Candidate): number =>
  Number(b.urgent) - Number(a.urgent) ||
  (a.urgent ? 0 : b.priority - a.priority) ||
  Number(b.task.late ?? false) - Number(a.task.late ?? false) ||
  Math.min(a.latestStart, LAST) - Math.min(b.latestStart, LAST) ||
  a.task.submittedAt - b.task.submittedAt ||
  (a.task.id < b.task.id ? -1 : 1);
