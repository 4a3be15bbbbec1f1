import type { ControlClient } from '../control/control-client.js';
import type { Reporter } from './reporter.js';

const SIGNALS = ['SIGINT', 'SIGTERM'] as const;
const EXIT_FAILED = 1;

/**
 * Ctrl-C while a migration is followed: the first one cancels it, and following goes on until it is cancelled; the
 * second one leaves at once. Before the id is known the wish is remembered.
 */
export class Interruption implements Disposable {
  readonly #client: ControlClient;
  readonly #reporter: Reporter;
  #id: string | undefined;
  #asked = false;

  constructor(client: ControlClient, reporter: Reporter) {
    this.#client = client;
    this.#reporter = reporter;
    for (const signal of SIGNALS) process.on(signal, this.#onSignal);
  }

  /** From here on the migration `id` is what a signal cancels. */
  arm(id: string): void {
    this.#id = id;
    if (this.#asked) this.#cancel(id);
  }

  [Symbol.dispose](): void {
    for (const signal of SIGNALS) process.off(signal, this.#onSignal);
  }

  readonly #onSignal = (): void => {
    if (this.#asked) {
      this.#reporter.end();
      console.error(`migratefs: left; see \`migratefs status${this.#id ? ` ${this.#id}` : ''}\``);
      process.exit(EXIT_FAILED);
    }
    this.#asked = true;
    this.#reporter.note(
      `cancelling ${this.#id ?? 'as soon as it has begun'}; Ctrl-C again leaves without waiting`,
    );
    if (this.#id) this.#cancel(this.#id);
  };

  #cancel(id: string): void {
    this.#client.cancel(id).catch((error: Error) => {
      // Too late, or refused; what happens instead is shown by following on.
      this.#reporter.note(`cannot cancel ${id}: ${error.message}`);
      this.#asked = false;
    });
  }
}
