const FREE = 0;
const HELD = 1;
const WAITED_FOR = 2;
/** The holder is in a call that returns soon; it notifies, so this bounds only what a lost wake-up would cost. */
const WAIT_MS = 100;

/** A mutual exclusion of threads in one word of shared memory (U. Drepper, "Futexes Are Tricky", mutex 2). */
export class SharedLock {
  readonly #words: Int32Array;
  readonly #at: number;

  /** The word is 0 at first. */
  constructor(words: Int32Array, at: number) {
    this.#words = words;
    this.#at = at;
  }

  /** Sleeps while another thread holds it: never in the main thread. False: not within `waitMs`. */
  acquire(waitMs = Number.POSITIVE_INFINITY): boolean {
    let left = waitMs;
    let seen = Atomics.compareExchange(this.#words, this.#at, FREE, HELD);
    while (seen !== FREE) {
      if (seen === WAITED_FOR || Atomics.compareExchange(this.#words, this.#at, HELD, WAITED_FOR) !== FREE)
        if (Atomics.wait(this.#words, this.#at, WAITED_FOR, WAIT_MS) === 'timed-out') left -= WAIT_MS;
      if (left <= 0) return false;
      seen = Atomics.compareExchange(this.#words, this.#at, FREE, WAITED_FOR);
    }
    return true;
  }

  release(): void {
    if (Atomics.exchange(this.#words, this.#at, FREE) === WAITED_FOR)
      Atomics.notify(this.#words, this.#at, 1);
  }
}
