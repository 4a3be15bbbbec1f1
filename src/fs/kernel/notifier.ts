import { writeInPool } from '../libc.js';

/**
 * Writes notifications to the kernel, from the thread pool: that can wait for a lock whose holder waits for a thread of
 * this mount. What the kernel answers (what it is to drop may be gone already) is of no interest.
 */
export class Notifier {
  readonly #fuseFd: number;
  readonly #underWay = new Set<Promise<void>>();

  constructor(fuseFd: number) {
    this.#fuseFd = fuseFd;
  }

  /** One after the other; resolves when the kernel has acted on all. */
  async send(messages: readonly Uint8Array[]): Promise<void> {
    const written = this.#write(messages);
    this.#underWay.add(written);
    await written;
    this.#underWay.delete(written);
  }

  async #write(messages: readonly Uint8Array[]): Promise<void> {
    for (const message of messages) await writeInPool(this.#fuseFd, message);
  }

  /** Resolves when everything has been written; the descriptor must stay open until then. */
  async idle(): Promise<void> {
    await Promise.all(this.#underWay);
  }
}
