import type { Clock } from '../../leaves/clock.js';
import { formatDuration } from '../../leaves/duration.js';
import { MigrateFsError } from '../../leaves/errors.js';
import type { Millis } from '../../leaves/units.js';

interface LimitedMove {
  readonly clock: Clock;
  readonly timeout: Millis;
  /** Aborting its signal ends the waiting, not the move. */
  readonly move: (signal: AbortSignal) => Promise<void>;
  /** Ends the move; whether the VM had been moved already. */
  readonly stop: () => Promise<'moved' | 'not-moved'>;
  /** Who moves which VM: `QEMU did not move vm7`. */
  readonly failure: string;
  readonly remedy: string;
}

/** Moves a VM, or stops the move after `timeout`: DEADLINE_EXCEEDED unless the VM had been moved by then. */
export const moveWithin = async (
  { clock, timeout, move, stop, failure, remedy }: LimitedMove,
  signal: AbortSignal,
): Promise<void> => {
  const late = new AbortController();
  const forget = clock.after(timeout, () => late.abort(new Error('late')));
  try {
    await move(AbortSignal.any([signal, late.signal]));
  } catch (error) {
    if (signal.aborted || !late.signal.aborted) throw error;
    if ((await stop()) === 'moved') return;
    throw new MigrateFsError(
      'DEADLINE_EXCEEDED',
      `${failure} within ${formatDuration(timeout)} and was told to give up: ${remedy}`,
    );
  } finally {
    forget();
  }
};
