/**
 * The latest start of each task at which nobody who shares a link or a place with it has to miss a deadline:
 * everything is packed against its deadlines from the back, the last deadline first.
 */
import { byDeadline, type Demand } from './demand.js';
import type { PlanLimits } from './task.js';

/** Of tasks with a deadline; wall clock in milliseconds, in the past where it is too late. */
export const latestStarts = (demands: readonly Demand[], limits: PlanLimits): ReadonlyMap<string, number> => {
  const starts = new Map<string, number>();
  /** Of each link: from here on all it carries is spoken for. */
  const spokenFor = new Map<string, number>();
  /** Of each place of a host or link: from here on it is. */
  const occupied = new Map<string, number[]>();
  const backwards = demands
    .filter(({ task }) => task.deadline !== undefined)
    .sort((a, b) => byDeadline(b.task, a.task));
  for (const { task, path, links, places, rate, dirty, copying, duration } of backwards) {
    const deadline = task.deadline!;
    let start = deadline - duration;
    starts.set(task.id, start);
    // What never gets in sync must not be what others wait for.
    if (start === Number.NEGATIVE_INFINITY) continue;
    // All that it sends, dirty blocks included, each link carries at its own pace.
    const sent = copying === 0 ? 0 : (rate / (rate - dirty)) * task.left;
    for (const [at, key] of links.entries()) {
      const before = Math.min(spokenFor.get(key) ?? Number.POSITIVE_INFINITY, deadline - task.terms.vmmTime);
      const from = before - (sent / (path[at]!.capacity * limits.share)) * 1000;
      spokenFor.set(key, from);
      start = Math.min(start, from);
    }
    for (const { key, size } of places) {
      const cursors =
        occupied.get(key) ??
        new Array<number>(Math.min(size, backwards.length)).fill(Number.POSITIVE_INFINITY);
      occupied.set(key, cursors);
      let last = 0;
      for (let at = 1; at < cursors.length; at++) if (cursors[at]! > cursors[last]!) last = at;
      cursors[last] = Math.min(cursors[last]!, deadline) - duration;
      start = Math.min(start, cursors[last]!);
    }
    starts.set(task.id, start);
  }
  return starts;
};
