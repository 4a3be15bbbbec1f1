import Bottleneck from 'bottleneck';

/** Bounds the moves of the hypervisor that are under way, by host: each has a source and a target. */
export class MoveSlots {
  readonly #perHost: number;
  readonly #group: Bottleneck.Group;

  constructor(perHost: number) {
    this.#perHost = perHost;
    this.#group = new Bottleneck.Group({ maxConcurrent: perHost });
  }

  /** Whether a place is free now. */
  isFree(host: string): boolean {
    const { EXECUTING, RUNNING, QUEUED, RECEIVED } = this.#group.key(host).counts();
    return EXECUTING + RUNNING + QUEUED + RECEIVED < this.#perHost;
  }

  /** Resolves with how to give the places back; rejects with the reason of `signal`. */
  async take(hosts: readonly string[], signal: AbortSignal): Promise<() => void> {
    const taken: (() => void)[] = [];
    const release = (): void => {
      for (const giveBack of taken.splice(0)) giveBack();
    };
    try {
      // Always in the same order, so that no two moves wait for each other.
      for (const host of [...hosts].sort()) taken.push(await this.#takeOne(host, signal));
      return release;
    } catch (error) {
      release();
      throw error;
    }
  }

  #takeOne(host: string, signal: AbortSignal): Promise<() => void> {
    return new Promise((resolve, reject) => {
      const onAbort = (): void => reject(signal.reason as Error);
      if (signal.aborted) return onAbort();
      signal.addEventListener('abort', onAbort, { once: true });
      const turn = (): Promise<void> =>
        new Promise((giveBack) => {
          signal.removeEventListener('abort', onAbort);
          if (signal.aborted) giveBack();
          else resolve(giveBack);
        });
      this.#group.key(host).schedule(turn).catch(reject);
    });
  }
}
