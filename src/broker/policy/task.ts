/** A migration task as admission and planning see it, and what they answer. Pure values. */
import type { BrokerTerms } from '../../leaves/broker.js';
import type { LinkLoad } from '../../leaves/hot-spots.js';
import type { Bytes, BytesPerSecond, Millis } from '../../leaves/units.js';

/** Where tasks stand for the planner. */
export type PlanState = 'waiting' | 'running';

export interface PlanTask {
  readonly id: string;
  /** Names of hosts in the topology. */
  readonly source: string;
  readonly target: string;
  /** Bytes still to copy: what the images allocate, or what a running migration has left. */
  readonly left: Bytes;
  /** What the images allocate: no more than this can be dirty. Absent: `left` of a waiting task, else not known. */
  readonly allocated?: Bytes;
  /** Bytes per second of distinct blocks that the guest is expected to dirty. */
  readonly dirtyRate: number;
  /** What the guest is expected to write; absent: not more than `dirtyRate`. Small writes dirty whole blocks. */
  readonly writeRate?: number;
  readonly terms: BrokerTerms;
  /** Wall clock. */
  readonly submittedAt: Millis;
  readonly notBefore?: Millis;
  readonly deadline?: Millis;
  /** It has a deadline that was never promised: nobody makes room for it, and it wastes no time. */
  readonly late?: boolean;
  /** 0 (least) to 9. */
  readonly priority: number;
  readonly state: PlanState;
  /** What a running migration moves now. */
  readonly netRate?: number;
  /** Since when a running one with nothing left is in sync, wall clock; absent: since now. */
  readonly syncedAt?: Millis;
  /** When a waiting one starts by the schedule that showed last that every promise is kept. */
  readonly turn?: Millis;
}

export interface PlanLink {
  readonly name: string;
  /**
   * From the second end of the link to the first. Links are full duplex: migrations share one only in the same
   * direction.
   */
  readonly backward?: boolean;
  readonly capacity: BytesPerSecond;
}

/** What the topology answers: links from source to target in order. Throws `MigrateFsError` where there is no route. */
export interface Paths {
  path(source: string, target: string): readonly PlanLink[];
}

export interface PlanLimits {
  readonly perHost: number;
  readonly perLink: number;
  /** The part of a link's capacity that admission counts on, above 0 to 1. */
  readonly share: number;
}

export interface PlanInput {
  readonly now: Millis;
  readonly tasks: readonly PlanTask[];
  readonly paths: Paths;
  readonly loads: readonly LinkLoad[];
  readonly limits: PlanLimits;
}

/** What to do with each waiting task. */
export type PlanStep =
  | { readonly id: string; readonly action: 'start'; readonly reason: string }
  | {
      readonly id: string;
      readonly action: 'wait';
      /**
       * `window`: not before. `hot`: postponed. `busy`: concurrency. `order`: others come first. `route`: the topology
       * has none.
       */
      readonly cause: 'window' | 'hot' | 'busy' | 'order' | 'route';
      readonly reason: string;
      /** When to look again at the latest; absent: when something ends. */
      readonly until?: Millis;
      /** What the next plan has to be told as the `turn` of this task. */
      readonly turn?: Millis;
    };

/** Whether a deadline can be met, with the arithmetic in words. */
export interface Admission {
  readonly feasible: boolean;
  /** One line with the numbers: what has to move, how fast it can, when it would end. */
  readonly arithmetic: string;
  /** When it would end at the latest, wall clock; absent where it never would. */
  readonly finish?: Millis;
  /** The latest start that still meets the deadline with the path to itself. */
  readonly latestStart?: Millis;
  /** It is feasible only if the writes of guests are limited: of this one's or of admitted ones. */
  readonly writesLimited?: boolean;
  /** Of an infeasible one: the earliest deadline that could be met; absent where none could. */
  readonly earliestDeadline?: Millis;
  /** Of a feasible one with a deadline: the `turn` of every waiting task with a deadline, by id. */
  readonly turns?: ReadonlyMap<string, Millis>;
}
