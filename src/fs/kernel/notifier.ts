import { writeInPool } from '../libc.js';

/**
 * Notifications to the kernel, one after the other, from the thread pool: writing one can wait for a lock whose holder
 * waits for a thread of this mount. What the kernel answers (the entry may be gone already) is of no interest.
 */
export class Notifier {
  readonly #fuseFd: number;
  #idle: Promise<void> = Promise.resolve();

  constructor(fuseFd: number) {
    this.#fuseFd = fuseFd;
  }

  send(messages: readonly Uint8Array[]): void {
    this.#idle = this.#idle.then(async () => {
      for (const message of messages) await writeInPool(this.#fuseFd, message);
    });
  }

  /** Resolves when everything has been written; the descriptor must stay open until then. */
  get idle(): Promise<void> {
    return this.#idle;
  }
}
