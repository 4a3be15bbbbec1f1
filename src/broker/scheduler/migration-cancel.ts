/** Taking a migration back at a source daemon that may not answer at the moment. */
import type { Clock } from '../../leaves/clock.js';
import { MigrateFsError } from '../../leaves/errors.js';
import type { HostControl } from './host-control.js';
import { isUncertain } from './host-control.js';
import { Backoff, watchMigration } from './migration-watch.js';

/** With pauses of up to 15 s. */
const TRIES_MAX = 8;

interface CancelEnvironment {
  readonly hosts: HostControl;
  readonly clock: Clock;
}

/** Makes the call again, for some time, while the daemon cannot be reached. */
const patiently = async <T>(call: () => Promise<T>, clock: Clock, stop: AbortSignal): Promise<T> => {
  const backoff = new Backoff(clock);
  for (let tries = 1; ; tries++) {
    try {
      return await call();
    } catch (error) {
      stop.throwIfAborted();
      if (!(error instanceof MigrateFsError) || !isUncertain(error.code) || tries >= TRIES_MAX) throw error;
    }
    await backoff.wait(stop);
  }
};

/** The migration that a start without an answer has made; undefined: none. UNAVAILABLE: the daemon cannot be asked. */
export const findMigration = async (
  { hosts, clock }: CancelEnvironment,
  host: string,
  requestId: string,
  stop: AbortSignal,
): Promise<string | undefined> => {
  const all = await patiently(() => hosts.list(host, stop), clock, stop);
  return all.find((migration) => migration.requestId === requestId && migration.role === 'source')?.id;
};

/** Resolves with what became of the migration. UNAVAILABLE: the daemon cannot be asked. */
export const cancelMigration = async (
  { hosts, clock }: CancelEnvironment,
  host: string,
  migrationId: string,
  stop: AbortSignal,
): Promise<'cancelled' | 'completed'> => {
  try {
    await patiently(() => hosts.cancel(host, migrationId, stop), clock, stop);
    return 'cancelled';
  } catch (error) {
    if (!(error instanceof MigrateFsError)) throw error;
    if (error.code === 'NOT_FOUND') return 'cancelled';
    if (error.code !== 'FAILED_PRECONDITION') throw error;
  }
  // It has ended by itself, or cannot be stopped any more.
  for await (const view of watchMigration(hosts, host, migrationId, clock, stop))
    if (view.kind === 'seen' && view.snapshot.state === 'completed') return 'completed';
  return 'cancelled';
};
