import type { BackOffRequest } from '../leaves/broker.js';
import type { Clock } from '../leaves/clock.js';
import { MigrateFsError } from '../leaves/errors.js';

/** Migrations that one broker listens to at the same time. */
const ASKERS_MAX = 64;
/** Milliseconds: nobody is obeyed for longer without asking again. */
const VALID_FOR_MAX = 600_000;

interface Pending {
  /** Monotonic time at which it stops counting. */
  readonly until: number;
  /** Monotonic time at which it is forgotten even if no decision has counted it. */
  readonly forgottenAt: number;
  /** Whether a decision has. */
  counted: boolean;
}

/**
 * Who has asked a broker to back off, each for as long as it asked for, from when it came, and at the next decision in any
 * case: whoever asks may have a shorter period than the one that is asked.
 */
export class BackOffRequests {
  readonly #clock: Clock;
  readonly #pending = new Map<string, Pending>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Takes a request, or renews the one of the same migration. RESOURCE_EXHAUSTED: too many ask already. */
  add({ from, validFor }: BackOffRequest): void {
    this.#expire();
    if (!this.#pending.has(from) && this.#pending.size >= ASKERS_MAX)
      throw new MigrateFsError(
        'RESOURCE_EXHAUSTED',
        `${ASKERS_MAX} migrations ask this one to back off already: ask again later`,
      );
    const now = this.#clock.now();
    const until = now + Math.min(validFor, VALID_FOR_MAX);
    this.#pending.set(from, { until, forgottenAt: now + VALID_FOR_MAX, counted: false });
  }

  /** Migrations whose request counts at a decision that is made now. */
  count(): readonly string[] {
    this.#expire();
    for (const request of this.#pending.values()) request.counted = true;
    return [...this.#pending.keys()];
  }

  /** Whether one would count now; this is not counting it. */
  get any(): boolean {
    this.#expire();
    return this.#pending.size > 0;
  }

  #expire(): void {
    const now = this.#clock.now();
    for (const [from, { until, forgottenAt, counted }] of this.#pending)
      if (until <= now && (counted || forgottenAt <= now)) this.#pending.delete(from);
  }
}
