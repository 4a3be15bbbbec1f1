import { systemClock } from '../../leaves/clock.js';
import type { Millis } from '../../leaves/units.js';
import { millis } from '../../leaves/units.js';
import { Errno } from '../errno.js';
import type { Namespace, Operation } from './namespace.js';
import type { RequestView } from './request.js';

/** Much longer than a RELEASE is on its way to the owner of the namespace. */
const WAIT_MAX = millis(50);

/**
 * Opens that are refused with ETXTBSY while a passed handle is open, tried again for a while: close(2) does not wait for its
 * RELEASE, which may come by another data worker and later than the OPEN of the same process.
 */
export class WaitingOpens {
  readonly #open: Operation;
  #waiting: { readonly request: RequestView; readonly until: Millis }[] = [];

  /** `open` leaves nothing behind when it fails. */
  constructor(open: Operation) {
    this.#open = open;
  }

  get any(): boolean {
    return this.#waiting.length > 0;
  }

  add(request: RequestView): void {
    this.#waiting.push({ request: request.clone(), until: millis(systemClock.now() + WAIT_MAX) });
  }

  retry(namespace: Namespace): void {
    if (!this.any) return;
    const now = systemClock.now();
    this.#waiting = this.#waiting.filter(({ request, until }) => {
      const length = this.#open(namespace, request);
      if (length === -Errno.ETXTBSY && now < until) return true;
      namespace.reply.send(request.fuseFd, request.uniqueLow, request.uniqueHigh, length);
      return false;
    });
  }
}
