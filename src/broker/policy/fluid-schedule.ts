/**
 * When tasks end if the earliest deadline always comes first: at every moment each link serves the started tasks in
 * the order of their deadlines, each as fast as its path still carries, and a task starts as soon as both of its hosts
 * and all of its links have a free place and it would get more than its guest dirties. A started task whose turn it
 * is not becomes dirty again, at most wholly. Fluid: rates change only when a task may start, is in sync, or ends.
 */
import type { Millis } from '../../leaves/units.js';
import { byDeadline, type Demand, linkKey, releaseOf } from './demand.js';
import type { PlanLimits } from './task.js';

interface Job {
  readonly demand: Demand;
  readonly links: readonly number[];
  /** Indices of its hosts and of its links among the places. */
  readonly places: readonly number[];
  readonly release: number;
  left: number;
  /** `copying` from its start to being in sync, `synced` until its places are free. */
  state: 'waiting' | 'copying' | 'synced' | 'ended';
  rate: number;
  /** In sync; with the hypervisor's time, its end. */
  syncedAt: number;
}

const RUNNING_OUT = 1e-6;

/** Numbers names as they come. */
class Numbering {
  readonly #numbers = new Map<string, number>();
  of(name: string): number {
    const known = this.#numbers.get(name);
    if (known !== undefined) return known;
    this.#numbers.set(name, this.#numbers.size);
    return this.#numbers.size - 1;
  }
  get size(): number {
    return this.#numbers.size;
  }
}

/** When each task ends, wall clock in milliseconds; `Infinity`: never. */
export type Ends = ReadonlyMap<string, number>;

export const fluidSchedule = (demands: readonly Demand[], limits: PlanLimits, now: Millis): Ends => {
  const links = new Numbering();
  const places = new Numbering();
  const capacities: number[] = [];
  const room: number[] = [];
  const place = (name: string, size: number): number => {
    const number = places.of(name);
    room[number] ??= size;
    return number;
  };
  const jobs = [...demands]
    .sort((a, b) => byDeadline(a.task, b.task))
    .map((demand): Job => {
      const { task, path } = demand;
      const keys = path.map(linkKey);
      const numbers = keys.map((key) => links.of(key));
      for (const [at, number] of numbers.entries()) capacities[number] = path[at]!.capacity * limits.share;
      return {
        demand,
        links: numbers,
        places: [
          place(`host ${task.source}`, limits.perHost),
          place(`host ${task.target}`, limits.perHost),
          ...keys.map((key) => place(key, limits.perLink)),
        ],
        release: releaseOf(task, now),
        left: task.left,
        state: 'waiting',
        rate: 0,
        syncedAt: Number.POSITIVE_INFINITY,
      };
    });
  // What runs holds its places even where there are more of them than the limits allow now.
  const take = (job: Job, count: 1 | -1): void => {
    for (const number of job.places) room[number]! -= count;
  };
  for (const job of jobs)
    if (job.demand.task.state === 'running') {
      job.state = 'copying';
      take(job, 1);
    }

  let time: number = now;
  let active = jobs;
  const spare = new Float64Array(links.size);
  for (;;) {
    for (const job of active)
      if (job.state === 'copying' && job.left <= RUNNING_OUT) {
        job.state = 'synced';
        job.syncedAt = time;
      }
    for (const job of active)
      if (job.state === 'synced' && job.syncedAt + job.demand.task.terms.vmmTime <= time) {
        job.state = 'ended';
        take(job, -1);
      }
    active = active.filter(({ state }) => state !== 'ended');
    if (active.length === 0) break;

    spare.set(capacities);
    let next = Number.POSITIVE_INFINITY;
    for (const job of active) {
      if (job.state === 'synced') {
        next = Math.min(next, job.syncedAt + job.demand.task.terms.vmmTime);
        continue;
      }
      if (job.release > time) {
        next = Math.min(next, job.release);
        continue;
      }
      let rate = Number.POSITIVE_INFINITY;
      for (const link of job.links) rate = Math.min(rate, spare[link]!);
      if (job.state === 'waiting') {
        if (job.left > 0 && rate <= job.demand.dirty) continue;
        if (job.places.some((number) => room[number]! < 1)) continue;
        job.state = 'copying';
        take(job, 1);
      }
      job.rate = rate;
      for (const link of job.links) spare[link]! -= rate;
      if (job.left <= RUNNING_OUT) next = time;
      else if (rate > job.demand.dirty)
        next = Math.min(next, time + (job.left / (rate - job.demand.dirty)) * 1000);
    }
    if (next === Number.POSITIVE_INFINITY) break;
    const passed = (next - time) / 1000;
    for (const job of active)
      if (job.state === 'copying') {
        const drain = job.rate - job.demand.dirty;
        const inSync = drain > 0 && time + (job.left / drain) * 1000 <= next;
        job.left = inSync ? 0 : Math.min(job.left - drain * passed, allocatedOf(job.demand));
      }
    time = next;
  }
  return new Map(jobs.map(({ demand, syncedAt }) => [demand.task.id, syncedAt + demand.task.terms.vmmTime]));
};

/** No more than this can be dirty. */
const allocatedOf = ({ task }: Demand): number =>
  task.allocated ?? (task.state === 'running' ? Number.POSITIVE_INFINITY : task.left);
