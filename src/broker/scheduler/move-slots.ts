import Bottleneck from 'bottleneck';

/** Bounds the moves of the hypervisor that are under way, by host: each has a source and a target. */
export class MoveSlots {
  readonly #perHost: number;
  /** Of hosts where somebody moves or waits. No `Bottleneck.Group`: it forgets what has run for five minutes. */
  readonly #hosts = new Map<string, Bottleneck>();

  constructor(perHost: number) {
    this.#perHost = perHost;
  }

  /** Whether a place is free now. */
  isFree(host: string): boolean {
    const limiter = this.#hosts.get(host);
    return limiter === undefined || jobsOf(limiter) < this.#perHost;
  }

  /** Hosts that something is kept of. */
  get hosts(): number {
    return this.#hosts.size;
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
      const limiter = this.#limiterOf(host);
      limiter
        .schedule(turn)
        .catch(reject)
        .finally(() => {
          if (jobsOf(limiter) === 0 && this.#hosts.get(host) === limiter) this.#hosts.delete(host);
        });
    });
  }

  #limiterOf(host: string): Bottleneck {
    const limiter = this.#hosts.get(host) ?? new Bottleneck({ maxConcurrent: this.#perHost });
    this.#hosts.set(host, limiter);
    return limiter;
  }
}

const jobsOf = (limiter: Bottleneck): number => {
  const { EXECUTING, RUNNING, QUEUED, RECEIVED } = limiter.counts();
  return EXECUTING + RUNNING + QUEUED + RECEIVED;
};
