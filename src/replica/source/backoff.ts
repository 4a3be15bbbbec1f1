import type { Millis } from '../../leaves/units.js';
import { millis } from '../../leaves/units.js';

const FIRST = millis(200);
const LONGEST = millis(10_000);

/** Delays that double, each between half and the whole of its step, so that many migrations do not come back at once. */
export class Backoff {
  readonly #random: () => number;
  #step: number = FIRST;

  constructor(random: () => number) {
    this.#random = random;
  }

  next(): Millis {
    const delay = this.#step * (0.5 + this.#random() / 2);
    this.#step = Math.min(this.#step * 2, LONGEST);
    return millis(delay);
  }
}
