import type { Clock } from '../../src/leaves/clock.js';
import type { Millis } from '../../src/leaves/units.js';

/** Time that passes when told to; both clocks begin at `start`. */
export class ManualClock implements Clock {
  #now: number;
  /** Somebody sets the wall clock: milliseconds from where it would be. */
  wallAhead = 0;
  #timers: { readonly at: number; readonly callback: () => void }[] = [];

  constructor(start = 0) {
    this.#now = start;
  }

  now(): Millis {
    return this.#now as Millis;
  }

  wall(): Millis {
    return (this.#now + this.wallAhead) as Millis;
  }

  after(delay: Millis, callback: () => void): () => void {
    const timer = { at: this.#now + delay, callback };
    this.#timers.push(timer);
    return () => {
      this.#timers = this.#timers.filter((other) => other !== timer);
    };
  }

  /** Timers that wait. */
  get pending(): number {
    return this.#timers.length;
  }

  /** Lets time pass: timers in order, and after each what waits for it. */
  async advance(milliseconds: number): Promise<void> {
    const end = this.#now + milliseconds;
    for (;;) {
      await new Promise((resolve) => setImmediate(resolve));
      const next = this.#timers.filter(({ at }) => at <= end).sort((a, b) => a.at - b.at)[0];
      if (!next) break;
      this.#now = Math.max(this.#now, next.at);
      this.#timers = this.#timers.filter((other) => other !== next);
      next.callback();
    }
    this.#now = end;
    await new Promise((resolve) => setImmediate(resolve));
  }
}
