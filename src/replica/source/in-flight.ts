import type { Settled } from './ports.js';

/** The changes that were sent and not acknowledged, by sequence number. */
export class InFlight {
  readonly #settled = new Map<number, Settled>();
  #drained: { readonly left: number; readonly resolve: () => void }[] = [];

  get size(): number {
    return this.#settled.size;
  }

  add(seq: number, settled: Settled): void {
    this.#settled.set(seq, settled);
  }

  /** False: no such change; the peer acknowledges what was never sent. */
  ack(seq: number): boolean {
    const settled = this.#settled.get(seq);
    if (!settled) return false;
    this.#settled.delete(seq);
    settled('acked');
    this.#checkDrained();
    return true;
  }

  /** The connection broke: everything unacknowledged is lost, in the order it was sent. */
  lose(): void {
    const all = [...this.#settled.values()];
    this.#settled.clear();
    for (const settled of all) settled('lost');
    this.#checkDrained();
  }

  /** Resolves when no more than `left` are in flight; rejects with the signal's reason. */
  drained(signal: AbortSignal, left = 0): Promise<void> {
    if (this.size <= left) return Promise.resolve();
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason as Error);
      const onAbort = (): void => reject(signal.reason as Error);
      signal.addEventListener('abort', onAbort, { once: true });
      const drained = (): void => {
        signal.removeEventListener('abort', onAbort);
        resolve();
      };
      this.#drained.push({ left, resolve: drained });
    });
  }

  #checkDrained(): void {
    if (this.#drained.length === 0) return;
    const reached = this.#drained.filter(({ left }) => this.size <= left);
    this.#drained = this.#drained.filter(({ left }) => this.size > left);
    for (const { resolve } of reached) resolve();
  }
}
