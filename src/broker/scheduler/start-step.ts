/** Step `starting`: the source daemon is asked for the migration. */
import { formatDuration } from '../../leaves/duration.js';
import { MigrateFsError, plainError } from '../../leaves/errors.js';
import type { MigrationSnapshot } from '../../leaves/migration.js';
import { formatSize } from '../../leaves/quantity.js';
import { NO_DRIVER } from '../../leaves/scheduler.js';
import { millis } from '../../leaves/units.js';
import { isUncertain } from './host-control.js';
import type { RunContext } from './run-context.js';
import { Cancelled } from './run-context.js';

export const startMigration = async (context: RunContext, stop: AbortSignal): Promise<void> => {
  const { hosts, vmmTime, clock } = context.env;
  const task = context.task;
  // The answer is waited for even when the task is to be cancelled: only with it is known what there is to cancel.
  let snapshot: MigrationSnapshot;
  const began = clock.now();
  try {
    const left = task.deadline === undefined ? undefined : Math.floor(task.deadline - clock.wall());
    const late = left !== undefined && left <= 0;
    snapshot = await hosts.start(
      task.source,
      {
        requestId: context.requestId(),
        images: task.images,
        target: task.target,
        // The VM that a driver has moved takes its images over by its first write; nobody else may.
        cutover: task.driver === NO_DRIVER || task.vmMoved ? 'explicit' : 'on-first-write',
        ...(left !== undefined && !late && { deadlineAfter: millis(left) }),
        priority: task.priority,
        danger: task.danger,
        warning: task.warning,
        important: task.important || late,
        vmmTime,
      },
      stop,
    );
  } catch (error) {
    stop.throwIfAborted();
    if (!(error instanceof MigrateFsError)) throw error;
    await notStarted(context, error, clock.now() - began, stop);
    return;
  }
  if (context.cancelled.aborted)
    return context.beginRollBack('cancelled', 'asked for', 'CANCELLED', snapshot.id);
  const moved = `${formatSize(snapshot.bytesTotal)} to copy`;
  context.enter(
    { kind: 'copying', migrationId: snapshot.id },
    `migration ${snapshot.id} started at ${task.source}, ${moved}`,
    { migrationId: snapshot.id, unanswered: undefined },
  );
  context.env.onMigration();
};

/** `waited`: milliseconds until the call failed. */
const notStarted = async (
  context: RunContext,
  error: MigrateFsError,
  waited: number,
  stop: AbortSignal,
): Promise<void> => {
  if (context.cancelled.aborted) throw new Cancelled();
  if (!isUncertain(error.code)) return context.attemptFailed(plainError(error), stop);
  // Not an attempt that failed: nobody knows, and the next one has the same request id.
  const { source, unanswered, vmMoved } = context.task;
  const { answerWait, clock } = context.env;
  const times = (unanswered?.times ?? 0) + 1;
  const silence = (unanswered?.silence ?? 0) + waited;
  // Once the VM has been moved there is only forward.
  if (silence >= answerWait && !vmMoved)
    return context.beginRollBack(
      'failed',
      `${source} was asked ${times} times in ${formatDuration(silence)}, and it is not known to have begun: ${error.message}`,
      'UNAVAILABLE',
    );
  const pause = context.pauseAfter(times);
  const shortened = vmMoved ? pause : Math.min(pause, answerWait - silence);
  context.enter(
    { kind: 'waiting', retryAt: millis(clock.wall() + shortened), uncertain: true },
    `asked for at ${source} and not known to have begun, asked again: ${error.message}`,
    { unanswered: { times, silence: millis(silence + shortened) } },
  );
};
