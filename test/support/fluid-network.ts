import type { Paths, PlanLink, PlanTask } from '../../src/broker/policy/task.js';
import { bytes, millis } from '../../src/leaves/units.js';

interface Moving {
  readonly task: PlanTask;
  readonly path: readonly PlanLink[];
  left: number;
  rate: number;
  syncedAt: number;
}

const keyOf = ({ name, backward }: PlanLink): string => `${name}${backward ? '-' : '+'}`;

/** A guest is limited to what its terms allow at worst. */
const dirtyOf = ({ dirtyRate, terms }: PlanTask): number => Math.min(dirtyRate, terms.diskFloor);

/**
 * A network in which started migrations share each direction of a link as brokers would have it at best: the earliest
 * deadline takes what its path carries, the next what is left; without a deadline age decides. What is not sent becomes dirty.
 */
export class FluidNetwork {
  readonly #paths: Paths;
  readonly #moving = new Map<string, Moving>();
  readonly ended = new Map<string, number>();
  now: number;

  constructor(paths: Paths, now: number) {
    this.#paths = paths;
    this.now = now;
  }

  start(task: PlanTask): void {
    const path = this.#paths.path(task.source, task.target);
    const left = task.left;
    this.#moving.set(task.id, { task, path, left, rate: 0, syncedAt: left === 0 ? this.now : Infinity });
  }

  /** As a planner sees them now. */
  running(): PlanTask[] {
    return [...this.#moving.values()].map(({ task, left, rate, syncedAt }) => ({
      ...task,
      state: 'running',
      allocated: task.left,
      left: bytes(Math.ceil(left)),
      netRate: rate,
      ...(syncedAt !== Infinity && { syncedAt: millis(syncedAt) }),
    }));
  }

  /** Goes on to `until` or to the first end before it; whether something ended. */
  advance(until: number): boolean {
    for (;;) {
      const next = Math.min(until, this.#nextChange());
      const passed = (next - this.now) / 1000;
      for (const moving of this.#moving.values()) {
        const drain = moving.rate - dirtyOf(moving.task);
        if (moving.syncedAt !== Infinity) continue;
        moving.left = Math.min(moving.task.left, moving.left - drain * passed);
        // Within a byte: times are rounded.
        if (moving.left < 1) {
          moving.left = 0;
          moving.syncedAt = next;
        }
      }
      this.now = next;
      let ended = false;
      for (const [id, { task, syncedAt }] of this.#moving)
        if (syncedAt + task.terms.vmmTime <= next) {
          this.#moving.delete(id);
          this.ended.set(id, next);
          ended = true;
        }
      if (ended || next >= until) return ended;
    }
  }

  #nextChange(): number {
    const spare = new Map<string, number>();
    let next = Infinity;
    const inOrder = [...this.#moving.values()].sort(
      ({ task: a }, { task: b }) =>
        (a.deadline ?? Number.MAX_VALUE) - (b.deadline ?? Number.MAX_VALUE) ||
        a.submittedAt - b.submittedAt ||
        (a.id < b.id ? -1 : 1),
    );
    for (const moving of inOrder) {
      if (moving.syncedAt !== Infinity) {
        moving.rate = 0;
        next = Math.min(next, moving.syncedAt + moving.task.terms.vmmTime);
        continue;
      }
      moving.rate = Math.min(...moving.path.map((link) => spare.get(keyOf(link)) ?? link.capacity));
      for (const link of moving.path)
        spare.set(keyOf(link), (spare.get(keyOf(link)) ?? link.capacity) - moving.rate);
      const drain = moving.rate - dirtyOf(moving.task);
      if (drain > 0) next = Math.min(next, this.now + (moving.left / drain) * 1000 + 0.001);
    }
    return next;
  }
}
