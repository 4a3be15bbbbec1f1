import { systemClock } from '../../leaves/clock.js';
import type { Millis } from '../../leaves/units.js';
import { millis } from '../../leaves/units.js';
import { Errno } from '../errno.js';
import type { RequestView } from './request.js';

/** Much longer than a RELEASE is on its way to the owner of the namespace. */
const WAIT_MAX = millis(50);

/**
 * Opens that are refused with ETXTBSY while a passed handle is open, tried again for a while: close(2) does not wait for its
 * RELEASE, which may come by another data worker and later than the OPEN of the same process.
 */
export class WaitingOpens {
  readonly #open: (request: RequestView) => number;
  readonly #answer: (request: RequestView, length: number) => void;
  #waiting: { readonly request: RequestView; readonly until: Millis }[] = [];

  /** `open` gives the length of the reply's body, or -errno, and then leaves nothing behind. */
  constructor(
    open: (request: RequestView) => number,
    answer: (request: RequestView, length: number) => void,
  ) {
    this.#open = open;
    this.#answer = answer;
  }

  get any(): boolean {
    return this.#waiting.length > 0;
  }

  add(request: RequestView): void {
    this.#waiting.push({ request: request.clone(), until: millis(systemClock.now() + WAIT_MAX) });
  }

  retry(): void {
    if (!this.any) return;
    const now = systemClock.now();
    this.#waiting = this.#waiting.filter(({ request, until }) => {
      const length = this.#open(request);
      if (length === -Errno.ETXTBSY && now < until) return true;
      this.#answer(request, length);
      return false;
    });
  }
}
