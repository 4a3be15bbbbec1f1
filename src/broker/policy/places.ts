/** Who occupies the places of hosts and links, and for whom free ones have to be kept. */
import type { Millis } from '../../leaves/units.js';
import { type Demand, ownLatestStart, releaseOf } from './demand.js';
import type { PlanTask } from './task.js';

/** A migration that yields to others may take this many times as long as with the path to itself. */
const SLOWED = 3;
/** Names in a line; the rest is counted. */
const NAMES_MAX = 3;

interface Occupant {
  readonly id: string;
  /** When its place is expected to be free at the latest. */
  readonly until: number;
}

/** A waiting task that wants a place. */
export interface Claim {
  readonly demand: Demand;
  /** With the path to itself. */
  readonly latestStart: number;
  readonly release: number;
}

interface Occupancy {
  readonly occupants: Occupant[];
  /** Occupants that this plan has started. */
  started: number;
  /** Waiting tasks with a deadline, by latest start. */
  readonly claims: Claim[];
}

/** Why a task has no place. */
export interface Taken {
  readonly words: string;
  /** By what this plan starts, not by what ran before. */
  readonly byStarted: boolean;
}

/** For whom the place that a task would take is kept. */
export interface Kept {
  readonly where: string;
  readonly task: PlanTask;
  readonly by: number;
}

export class Places {
  readonly #all = new Map<string, Occupancy>();
  readonly #started = new Set<string>();
  readonly #now: Millis;

  constructor(demands: readonly Demand[], now: Millis) {
    this.#now = now;
    for (const demand of demands) {
      const { task } = demand;
      if (task.state === 'running') this.#occupy(demand);
      else if (task.deadline !== undefined)
        for (const { key } of demand.places)
          this.#at(key).claims.push({
            demand,
            latestStart: ownLatestStart(demand),
            release: releaseOf(task, now),
          });
    }
    for (const { claims } of this.#all.values()) claims.sort((a, b) => a.latestStart - b.latestStart);
  }

  /** The first of its places that is full, in words; undefined: it may start. */
  taken({ places }: Demand): Taken | undefined {
    for (const { key, name, size } of places) {
      const { occupants, started } = this.#at(key);
      if (occupants.length < size) continue;
      const names = occupants.slice(0, NAMES_MAX).map(({ id }) => id);
      const more = occupants.length > NAMES_MAX ? ` and ${occupants.length - NAMES_MAX} more` : '';
      return {
        words: `${name} has ${occupants.length} of ${size} migrations: ${names.join(', ')}${more}`,
        byStarted: started > 0,
      };
    }
    return undefined;
  }

  /** A deadline that would come too late to a place if `demand`, which has none, took it now, and not otherwise. */
  keptFor(demand: Demand): Kept | undefined {
    const until = this.#until(demand);
    for (const { key, name, size } of demand.places) {
      const { occupants, claims } = this.#at(key);
      const waiting: Claim[] = [];
      for (const claim of claims) {
        if (claim.latestStart >= until) break;
        const { task } = claim.demand;
        if (!this.#started.has(task.id)) waiting.push(claim);
      }
      if (waiting.length === 0) continue;
      const busy = occupants.map((occupant) => occupant.until);
      const free = Math.min(size - occupants.length, waiting.length + 1);
      const slots = [...busy, ...new Array<number>(free).fill(this.#now)];
      const late = lateClaims(waiting, [...slots.slice(0, -1), until]);
      if (late.length === 0) continue;
      const anyway = new Set(lateClaims(waiting, slots));
      const blamed = late.find((claim) => !anyway.has(claim));
      if (blamed) return { where: name, task: blamed.demand.task, by: blamed.latestStart };
    }
    return undefined;
  }

  start(demand: Demand): void {
    this.#occupy(demand);
    this.#started.add(demand.task.id);
    for (const { key } of demand.places) this.#at(key).started++;
  }

  #at(key: string): Occupancy {
    let occupancy = this.#all.get(key);
    if (!occupancy) {
      occupancy = { occupants: [], started: 0, claims: [] };
      this.#all.set(key, occupancy);
    }
    return occupancy;
  }

  #occupy(demand: Demand): void {
    const occupant = { id: demand.task.id, until: this.#until(demand) };
    for (const { key } of demand.places) this.#at(key).occupants.push(occupant);
  }

  /** One with a deadline takes up to then at most. */
  #until({ task, duration }: Demand): number {
    const slowed = this.#now + SLOWED * duration;
    return Math.max(this.#now + duration, Math.min(task.deadline ?? slowed, slowed));
  }
}

/** Those of `claims` that get a place after their latest start, each in turn taking the one that is free first. */
export const lateClaims = <T extends Claim>(
  claims: readonly T[],
  freeFrom: readonly number[],
): readonly T[] => {
  const slots = [...freeFrom];
  const late: T[] = [];
  for (const claim of claims) {
    let first = 0;
    for (let at = 1; at < slots.length; at++) if (slots[at]! < slots[first]!) first = at;
    const start = Math.max(slots[first]!, claim.release);
    if (start > claim.latestStart) late.push(claim);
    slots[first] = start + claim.demand.duration;
  }
  return late;
};
