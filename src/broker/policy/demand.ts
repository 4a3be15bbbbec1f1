/** What a task asks of the links of its path, and how long that takes with the path to itself (Expression 1). */
import { MigrateFsError } from '../../leaves/errors.js';
import type { Millis } from '../../leaves/units.js';
import type { Paths, PlanLimits, PlanLink, PlanTask } from './task.js';

/** Whether the guest writes as it likes, or is limited to what its terms allow at worst. */
export type Guest = 'free' | 'limited';

/** What a migration occupies while it runs: one of so many at a host, or in one direction of a link. */
export interface Place {
  readonly key: string;
  /** For people. */
  readonly name: string;
  readonly size: number;
}

export interface Demand {
  readonly task: PlanTask;
  readonly path: readonly PlanLink[];
  /** Of the links of `path`: `linkKey`. */
  readonly links: readonly string[];
  readonly places: readonly Place[];
  /** The link that bounds `rate`: the first of the slowest. */
  readonly narrowest: PlanLink;
  /** Bytes per second that the path carries, of each link the part that admission counts on. */
  readonly rate: number;
  /** Bytes per second of distinct blocks that become dirty meanwhile. */
  readonly dirty: number;
  /** Until in sync, in milliseconds; `Infinity` where the guest dirties as fast as the path carries. */
  readonly copying: number;
  /** The same and the hypervisor's time: `copying` + `VMM_time`. */
  readonly duration: number;
}

/** Links are full duplex: each direction is a resource of its own. */
export const linkKey = (link: Pick<PlanLink, 'name' | 'backward'>): string =>
  link.backward ? `link ${link.name} <` : `link ${link.name} >`;

/**
 * A disk limit slows dirtying as it slows writing. Where only the dirty rate is known the guest is taken to dirty what
 * it writes.
 */
export const dirtyRateOf = (task: PlanTask, guest: Guest): number => {
  if (guest === 'free') return task.dirtyRate;
  const written = Math.max(task.writeRate ?? task.dirtyRate, 0);
  return written <= task.terms.diskFloor ? task.dirtyRate : (task.dirtyRate * task.terms.diskFloor) / written;
};

/** Throws what `paths` throws where there is no route. */
export const demandOf = (task: PlanTask, paths: Paths, limits: PlanLimits, guest: Guest): Demand => {
  const path = paths.path(task.source, task.target);
  const [first] = path;
  if (!first)
    throw new MigrateFsError('FAILED_PRECONDITION', `no link between '${task.source}' and '${task.target}'`);
  const narrowest = path.reduce((least, link) => (link.capacity < least.capacity ? link : least), first);
  const rate = narrowest.capacity * limits.share;
  const dirty = dirtyRateOf(task, guest);
  const copying =
    task.left === 0 ? 0 : rate > dirty ? (task.left / (rate - dirty)) * 1000 : Number.POSITIVE_INFINITY;
  const links = path.map(linkKey);
  const places = [
    { key: `host ${task.source}`, name: task.source, size: limits.perHost },
    { key: `host ${task.target}`, name: task.target, size: limits.perHost },
    ...path.map(({ name }, at) => ({ key: links[at]!, name: `link ${name}`, size: limits.perLink })),
  ];
  const duration = copying + task.terms.vmmTime;
  return { task, path, links, places, narrowest, rate, dirty, copying, duration };
};

/** The latest start that meets the deadline with the path to itself; `Infinity` without a deadline. */
export const ownLatestStart = ({ task, duration }: Demand): number =>
  (task.deadline ?? Number.POSITIVE_INFINITY) - duration;

/** The earliest moment a task may start. */
export const releaseOf = (task: PlanTask, now: Millis): number =>
  task.state === 'running' ? now : Math.max(now, task.notBefore ?? 0);

/** Finite, so that two of them compare as equal. */
const LAST = Number.MAX_VALUE;

/** Orders by deadline, those without one last; ties by age, then by id. */
export const byDeadline = (a: PlanTask, b: PlanTask): number =>
  (a.deadline ?? LAST) - (b.deadline ?? LAST) ||
  a.submittedAt - b.submittedAt ||
  (a.id < b.id ? -1 : a.id > b.id ? 1 : 0);
