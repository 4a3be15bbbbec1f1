import type { BackOffRequest } from '../leaves/broker.js';
import type { Clock } from '../leaves/clock.js';
import { MigrateFsError } from '../leaves/errors.js';

/** Migrations that one broker listens to at the same time. */
const ASKERS_MAX = 64;
/** Milliseconds: nobody is obeyed for longer without asking again. */
const VALID_FOR_MAX = 600_000;

/** Who has asked a broker to back off, each for as long as it asked for, from when it came. */
export class BackOffRequests {
  readonly #clock: Clock;
  /** Monotonic time at which each stops counting. */
  readonly #until = new Map<string, number>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Takes a request, or renews the one of the same migration. RESOURCE_EXHAUSTED: too many ask already. */
  add({ from, validFor }: BackOffRequest): void {
    this.#expire();
    if (!this.#until.has(from) && this.#until.size >= ASKERS_MAX)
      throw new MigrateFsError(
        'RESOURCE_EXHAUSTED',
        `${ASKERS_MAX} migrations ask this one to back off already: ask again later`,
      );
    this.#until.set(from, this.#clock.now() + Math.min(validFor, VALID_FOR_MAX));
  }

  /** Migrations whose request counts now. */
  valid(): readonly string[] {
    this.#expire();
    return [...this.#until.keys()];
  }

  #expire(): void {
    const now = this.#clock.now();
    for (const [from, until] of this.#until) if (until <= now) this.#until.delete(from);
  }
}
