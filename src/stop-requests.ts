const STOP_SIGNALS: readonly NodeJS.Signals[] = ['SIGINT', 'SIGTERM', 'SIGHUP'];

/** What the process was asked by signals from its first moment on; a mount must never outlive it. */
export class StopRequests implements Disposable {
  #listener: (signal: NodeJS.Signals) => void = () => {};
  #early: NodeJS.Signals | undefined;
  readonly #onSignal = (signal: NodeJS.Signals): void => {
    this.#early = signal;
    this.#listener(signal);
  };

  constructor() {
    for (const signal of STOP_SIGNALS) process.on(signal, this.#onSignal);
  }

  /** Calls `listener` for each signal from now on, and at once for one that has come already. */
  listen(listener: (signal: NodeJS.Signals) => void): void {
    this.#listener = listener;
    if (this.#early) listener(this.#early);
  }

  [Symbol.dispose](): void {
    for (const signal of STOP_SIGNALS) process.off(signal, this.#onSignal);
  }
}
