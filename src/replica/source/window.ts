/** Bounds the bytes that are sent and not acknowledged. The limit may move while it is in use. */
export class Window {
  readonly #limit: () => number;
  readonly #waiting: (() => void)[] = [];
  #used = 0;

  /** `limit` in bytes. */
  constructor(limit: () => number) {
    this.#limit = limit;
  }

  /** Bytes, as of now. */
  get limit(): number {
    return this.#limit();
  }

  get used(): number {
    return this.#used;
  }

  /** Takes `amount` as soon as less than the limit is in use; whoever waits longest is first. */
  async take(amount: number, signal: AbortSignal): Promise<void> {
    while (this.#used >= this.#limit()) await this.#room(signal);
    this.#used += amount;
  }

  /** Takes it if that is possible at once. */
  tryTake(amount: number): boolean {
    if (this.#used >= this.#limit()) return false;
    this.#used += amount;
    return true;
  }

  /** Takes it in any case. */
  force(amount: number): void {
    this.#used += amount;
  }

  give(amount: number): void {
    this.#used -= amount;
    if (this.#used < this.#limit()) for (const resolve of this.#waiting.splice(0)) resolve();
  }

  #room(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason as Error);
      const onAbort = (): void => reject(signal.reason as Error);
      signal.addEventListener('abort', onAbort, { once: true });
      this.#waiting.push(() => {
        signal.removeEventListener('abort', onAbort);
        resolve();
      });
    });
  }
}
