import type { Clock } from '../../leaves/clock.js';
import { pause } from '../../leaves/clock.js';
import { MigrateFsError } from '../../leaves/errors.js';
import type { MigrationSnapshot } from '../../leaves/migration.js';
import { isFinal } from '../../leaves/migration.js';
import type { Millis } from '../../leaves/units.js';
import { millis } from '../../leaves/units.js';
import type { HostControl } from './host-control.js';

const RETRY_FIRST = millis(500);
const RETRY_LAST = millis(15_000);

/** Waiting that doubles each time, up to a bound. */
export class Backoff {
  readonly #clock: Clock;
  readonly #first: Millis;
  readonly #last: Millis;
  #next: Millis;

  constructor(clock: Clock, first = RETRY_FIRST, last = RETRY_LAST) {
    this.#clock = clock;
    this.#first = first;
    this.#last = last;
    this.#next = first;
  }

  async wait(signal: AbortSignal): Promise<void> {
    const delay = this.#next;
    this.#next = millis(Math.min(this.#last, delay * 2));
    await pause(this.#clock, delay, signal);
  }

  reset(): void {
    this.#next = this.#first;
  }
}

/** What is seen of a migration. */
export type MigrationView =
  | { readonly kind: 'seen'; readonly snapshot: MigrationSnapshot }
  /** Its daemon cannot be asked; it is asked again. */
  | { readonly kind: 'unreachable'; readonly error: MigrateFsError }
  /** Its daemon does not know it. */
  | { readonly kind: 'gone' };

/** Follows a migration over lost connections, until it is final or gone. Rejects with the reason of `signal`. */
export async function* watchMigration(
  hosts: HostControl,
  host: string,
  migrationId: string,
  clock: Clock,
  signal: AbortSignal,
): AsyncGenerator<MigrationView, void, void> {
  const backoff = new Backoff(clock);
  for (;;) {
    signal.throwIfAborted();
    try {
      for await (const snapshot of hosts.watch(host, migrationId, signal)) {
        backoff.reset();
        yield { kind: 'seen', snapshot };
        if (isFinal(snapshot.state)) return;
      }
    } catch (error) {
      signal.throwIfAborted();
      if (!(error instanceof MigrateFsError)) throw error;
      if (error.code === 'NOT_FOUND') {
        yield { kind: 'gone' };
        return;
      }
      yield { kind: 'unreachable', error };
    }
    await backoff.wait(signal);
  }
}
