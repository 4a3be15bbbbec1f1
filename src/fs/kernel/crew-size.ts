import type { Millis } from '../../leaves/units.js';

/** One look at the workers in service. */
export interface CrewLook {
  readonly workers: number;
  /** How many were in a call. */
  readonly busy: number;
  /** How many were in the same call when last looked at. */
  readonly sameCall: number;
  /** Requests wait that no worker has taken. */
  readonly queued: boolean;
  /** What a request has taken a worker since the last look, waiting for a CPU included. */
  readonly perRequest: Millis;
}

/**
 * Requests that take less are made of CPU time: further workers would have to share it, and whoever waits in the queue
 * does not wait for long. A read of the fastest disks takes longer.
 */
const QUICK_REQUEST_MILLIS = 0.05;

/** So many looks in turn have to say the same before workers are added. */
const BUSY_LOOKS = 2;
/** ... and before any is taken away: many more, because starting a thread costs more than keeping it for a while. */
const QUIET_LOOKS = 20;

/**
 * How many data workers there should be: more while requests wait although every worker is in a call that takes its time
 * and none is stuck in it (a stuck image would only take the new ones along), fewer when half of them would do. Looks
 * come at a fixed interval.
 */
export class CrewSize {
  readonly #least: number;
  readonly #most: number;
  #busyLooks = 0;
  #quietLooks = 0;

  constructor(least: number, most: number) {
    this.#least = least;
    this.#most = most;
  }

  /** By how many workers to change now. */
  decide({ workers, busy, sameCall, queued, perRequest }: CrewLook): number {
    const wanted = queued && busy === workers && sameCall === 0 && perRequest >= QUICK_REQUEST_MILLIS;
    this.#busyLooks = wanted ? this.#busyLooks + 1 : 0;
    this.#quietLooks = busy * 2 <= workers ? this.#quietLooks + 1 : 0;
    if (this.#busyLooks >= BUSY_LOOKS) return Math.min(workers, this.#most - workers);
    return this.#quietLooks >= QUIET_LOOKS && workers > this.#least ? -1 : 0;
  }
}
