/** Undoing what a program outside the test runner (demo, benchmark, soak) has made, in every case. */
import type { Teardown } from './scratch.js';

/** Undo steps, last added first. Each runs even when another has failed. */
export class Cleanup implements Teardown {
  readonly #steps: (() => unknown)[] = [];
  #running: Promise<void> | null = null;

  teardown(undo: () => unknown): void {
    this.#steps.push(undo);
  }

  run(): Promise<void> {
    this.#running ??= this.#undoAll();
    return this.#running;
  }

  async #undoAll(): Promise<void> {
    for (let undo = this.#steps.pop(); undo; undo = this.#steps.pop()) {
      try {
        await undo();
      } catch (error) {
        process.stderr.write(`cleaning up: ${(error as Error).message}\n`);
      }
    }
    this.#running = null;
  }
}

const SIGNALS = { SIGHUP: 1, SIGINT: 2, SIGTERM: 15 } as const;
type EndSignal = keyof typeof SIGNALS;

/**
 * Runs `work` and cleans up after it in every case. A signal cleans up and ends the process with 128 + its number;
 * `work` is not waited for then: what it stands on is being taken away.
 */
export const withCleanup = async <T>(work: (cleanup: Cleanup) => Promise<T>): Promise<T> => {
  const cleanup = new Cleanup();
  let interrupted = false;
  const onSignal = (signal: NodeJS.Signals): void => {
    if (interrupted) return;
    interrupted = true;
    process.stderr.write(`\n${signal}: cleaning up\n`);
    void cleanup.run().finally(() => process.exit(128 + SIGNALS[signal as EndSignal]));
  };
  const signals = Object.keys(SIGNALS) as EndSignal[];
  for (const signal of signals) process.on(signal, onSignal);
  try {
    return await work(cleanup);
  } catch (error) {
    // The work failed because of the signal, and the signal decides how the process ends.
    if (interrupted) return await new Promise<never>(() => undefined);
    throw error;
  } finally {
    if (!interrupted) await cleanup.run();
    for (const signal of signals) process.off(signal, onSignal);
  }
};
