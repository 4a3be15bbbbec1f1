/**
 * When tasks start and end if the earliest deadline always comes first: at every moment each link serves the started
 * tasks in the order of their deadlines, each as fast as its path still carries. A task starts as soon as it would get
 * more than its guest dirties, both of its hosts and all of its links have a free place, and none of these has to be
 * kept for an earlier deadline. A started task whose turn it is not becomes dirty again, at most wholly. Fluid: rates
 * change only when a task may start, is in sync, or ends.
 *
 * When to start is a guess, because the future is not searched: a schedule made a minute later may be a worse one. A
 * task of which a turn is known starts then, or as soon afterwards as its places are free, and nothing else is asked.
 */
import type { Millis } from '../../leaves/units.js';
import { byDeadline, type Demand, ownLatestStart, releaseOf } from './demand.js';
import { type Claim, lateClaims } from './places.js';
import type { PlanLimits, PlanTask } from './task.js';

interface Job extends Claim {
  /** Position by deadline. */
  readonly order: number;
  readonly links: readonly number[];
  /** Indices of what it occupies. */
  readonly places: readonly number[];
  readonly allocated: number;
  /** Its start is given. */
  readonly timed: boolean;
  left: number;
  /** `copying` from its start to being in sync, `synced` until its places are free. */
  state: 'waiting' | 'copying' | 'synced' | 'ended';
  /** Bytes per second that it is served. */
  rate: number;
  startedAt: number;
  syncedAt: number;
}

interface Room {
  readonly size: number;
  taken: number;
  readonly jobs: Job[];
}

/** A byte's fraction that rounding leaves. */
const RUNNING_OUT = 1e-6;
/** Bytes per second above what is dirtied that make a start worth its places; less is what rounding leaves. */
const CRUMBS = 1;
/** Milliseconds. */
const OVERDUE_MIN = 1_000;

/** Numbers names as they come. */
class Numbering {
  readonly #numbers = new Map<string, number>();
  of(name: string): number {
    const known = this.#numbers.get(name);
    if (known !== undefined) return known;
    this.#numbers.set(name, this.#numbers.size);
    return this.#numbers.size - 1;
  }
}

/** Wall clock in milliseconds; `Infinity`: never. */
export interface Times {
  readonly start: number;
  /** In sync, and the hypervisor's time has passed. */
  readonly end: number;
}

/** Starts by id, wall clock. */
export type Turns = ReadonlyMap<string, number>;

/** A hypervisor that takes longer than expected is expected to take as long again. */
const syncedAtOf = ({ syncedAt, terms }: PlanTask, now: Millis): number => {
  const since = Math.min(syncedAt ?? now, now);
  const overdue = now - (since + terms.vmmTime);
  return overdue < 0 ? since : now + Math.max(overdue, OVERDUE_MIN) - terms.vmmTime;
};

const endOf = ({ demand, syncedAt }: Job): number => syncedAt + demand.task.terms.vmmTime;

class FluidSchedule {
  readonly #jobs: readonly Job[];
  readonly #capacities: number[] = [];
  readonly #rooms: Room[] = [];
  /** By release, the latest first. */
  readonly #later: Job[];
  #time: number;
  /** Released and not ended, by deadline. */
  #active: Job[];

  constructor(demands: readonly Demand[], limits: PlanLimits, now: Millis, turns?: Turns) {
    this.#time = now;
    const links = new Numbering();
    const rooms = new Numbering();
    this.#jobs = [...demands]
      .sort((a, b) => byDeadline(a.task, b.task))
      .map((demand, order): Job => {
        const { task, path } = demand;
        const turn = task.state === 'waiting' ? turns?.get(task.id) : undefined;
        const job: Job = {
          demand,
          order,
          latestStart: ownLatestStart(demand),
          release: Math.max(releaseOf(task, now), turn ?? 0),
          timed: turn !== undefined,
          links: demand.links.map((key) => links.of(key)),
          places: demand.places.map(({ key }) => rooms.of(key)),
          allocated: task.allocated ?? (task.state === 'running' ? Number.POSITIVE_INFINITY : task.left),
          left: task.left,
          state: 'waiting',
          rate: 0,
          startedAt: Number.POSITIVE_INFINITY,
          syncedAt: Number.POSITIVE_INFINITY,
        };
        for (const [at, link] of job.links.entries())
          this.#capacities[link] = path[at]!.capacity * limits.share;
        for (const [at, place] of job.places.entries()) {
          this.#rooms[place] ??= { size: demand.places[at]!.size, taken: 0, jobs: [] };
          this.#rooms[place].jobs.push(job);
        }
        return job;
      });
    this.#active = this.#jobs.filter(({ release }) => release <= now);
    this.#later = this.#jobs.filter(({ release }) => release > now).sort((a, b) => b.release - a.release);
    // What runs holds its places even where there are more than the limits allow now.
    for (const job of this.#active)
      if (job.demand.task.state === 'running') {
        this.#start(job);
        if (job.left > RUNNING_OUT) continue;
        job.state = 'synced';
        job.syncedAt = syncedAtOf(job.demand.task, now);
      }
  }

  run(): ReadonlyMap<string, Times> {
    for (;;) {
      this.#settle();
      const next = Math.min(this.#serve(), this.#later.at(-1)?.release ?? Number.POSITIVE_INFINITY);
      if (next === Number.POSITIVE_INFINITY) break;
      this.#pass(next);
    }
    return new Map(this.#jobs.map((job) => [job.demand.task.id, { start: job.startedAt, end: endOf(job) }]));
  }

  #start(job: Job): void {
    job.state = 'copying';
    job.startedAt = this.#time;
    for (const number of job.places) this.#rooms[number]!.taken++;
  }

  /** What has nothing left is in sync; what has been for long enough ends; what is released joins. */
  #settle(): void {
    let ended = false;
    for (const job of this.#active) {
      if (job.state === 'copying' && job.left <= RUNNING_OUT) {
        job.state = 'synced';
        job.syncedAt = this.#time;
      }
      if (job.state === 'synced' && endOf(job) <= this.#time) {
        job.state = 'ended';
        ended = true;
        for (const number of job.places) this.#rooms[number]!.taken--;
      }
    }
    if (ended) this.#active = this.#active.filter(({ state }) => state !== 'ended');
    let joined = false;
    while (this.#later.length > 0 && this.#later.at(-1)!.release <= this.#time) {
      this.#active.push(this.#later.pop()!);
      joined = true;
    }
    if (joined) this.#active.sort((a, b) => a.order - b.order);
  }

  /** Starts what may start and sets all rates; answers when they change next. */
  #serve(): number {
    const spare = Float64Array.from(this.#capacities);
    let next = Number.POSITIVE_INFINITY;
    for (const job of this.#active) {
      if (job.state === 'synced') {
        next = Math.min(next, endOf(job));
        continue;
      }
      if (job.state === 'waiting' && !this.#hasPlaces(job)) continue;
      let rate = Number.POSITIVE_INFINITY;
      for (const link of job.links) rate = Math.min(rate, spare[link]!);
      if (job.state === 'waiting' && !job.timed && job.left > 0 && rate <= job.demand.dirty + CRUMBS)
        continue;
      job.rate = rate;
      const sync = this.#syncOf(job);
      if (job.state === 'waiting') {
        const until = sync + job.demand.task.terms.vmmTime;
        if (!job.timed && !job.places.every((number) => this.#isSpare(this.#rooms[number]!, job, until)))
          continue;
        this.#start(job);
      }
      for (const link of job.links) spare[link]! -= rate;
      next = Math.min(next, sync);
    }
    return next;
  }

  #hasPlaces({ places }: Job): boolean {
    for (const number of places) {
      const { size, taken } = this.#rooms[number]!;
      if (taken >= size) return false;
    }
    return true;
  }

  #syncOf({ left, rate, demand }: Job): number {
    return left <= RUNNING_OUT
      ? this.#time
      : rate > demand.dirty
        ? this.#time + (left / (rate - demand.dirty)) * 1000
        : Number.POSITIVE_INFINITY;
  }

  /** Whether no earlier deadline comes too late if `job` takes a place until then. */
  #isSpare({ size, taken, jobs }: Room, job: Job, until: number): boolean {
    const claims: Job[] = [];
    // Jobs are in the order of their deadlines.
    for (const other of jobs) {
      if (other === job) break;
      if (other.state === 'waiting' && other.latestStart < until) claims.push(other);
    }
    if (claims.length === 0 || size - taken > claims.length) return true;
    claims.sort((a, b) => a.latestStart - b.latestStart);
    const busy = jobs
      .filter(({ state }) => state === 'copying' || state === 'synced')
      .map((other) =>
        other.state === 'synced' ? endOf(other) : this.#syncOf(other) + other.demand.task.terms.vmmTime,
      );
    const slots = [...busy, ...new Array<number>(size - taken).fill(this.#time)];
    const anyway = lateClaims(claims, slots);
    return lateClaims(claims, [...slots.slice(0, -1), until]).every((claim) => anyway.includes(claim));
  }

  #pass(next: number): void {
    const seconds = (next - this.#time) / 1000;
    for (const job of this.#active)
      if (job.state === 'copying')
        job.left =
          this.#syncOf(job) <= next
            ? 0
            : Math.min(job.left - (job.rate - job.demand.dirty) * seconds, job.allocated);
    this.#time = next;
  }
}

/** Of each task its start, `now` for what runs, and its end. */
export const fluidSchedule = (
  demands: readonly Demand[],
  limits: PlanLimits,
  now: Millis,
  turns?: Turns,
): ReadonlyMap<string, Times> => new FluidSchedule(demands, limits, now, turns).run();

/** The starts of a schedule, as far as they come. */
export const turnsOf = (schedule: ReadonlyMap<string, Times>): Turns =>
  new Map(
    [...schedule].flatMap(([id, { start }]) => (start === Number.POSITIVE_INFINITY ? [] : [[id, start]])),
  );
