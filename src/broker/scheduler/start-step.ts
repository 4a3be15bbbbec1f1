/** Step `starting`: the source daemon is asked for the migration. */
import { MigrateFsError, plainError } from '../../leaves/errors.js';
import type { MigrationSnapshot } from '../../leaves/migration.js';
import { formatSize } from '../../leaves/quantity.js';
import { NO_DRIVER } from '../../leaves/scheduler.js';
import { isUncertain } from './host-control.js';
import type { RunContext } from './run-context.js';
import { Cancelled } from './run-context.js';

export const startMigration = async (context: RunContext, stop: AbortSignal): Promise<void> => {
  const { hosts, vmmTime, clock } = context.env;
  const task = context.task;
  // The answer is waited for even when the task is to be cancelled: only with it is known what there is to cancel.
  let snapshot: MigrationSnapshot;
  try {
    const late = task.deadline !== undefined && task.deadline <= clock.wall();
    snapshot = await hosts.start(
      task.source,
      {
        requestId: context.requestId(),
        images: task.images,
        target: task.target,
        // The VM that a driver has moved takes its images over by its first write; nobody else may.
        cutover: task.driver === NO_DRIVER || task.vmMoved ? 'explicit' : 'on-first-write',
        ...(task.deadline !== undefined && !late && { deadline: task.deadline }),
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
    await notStarted(context, error, stop);
    return;
  }
  if (context.cancelled.aborted)
    return context.beginRollBack('cancelled', 'asked for', 'CANCELLED', snapshot.id);
  const moved = `${formatSize(snapshot.bytesTotal)} to copy`;
  context.enter(
    { kind: 'copying', migrationId: snapshot.id },
    `migration ${snapshot.id} started at ${task.source}, ${moved}`,
    { migrationId: snapshot.id },
  );
  context.env.onMigration();
};

const notStarted = async (context: RunContext, error: MigrateFsError, stop: AbortSignal): Promise<void> => {
  if (context.cancelled.aborted) throw new Cancelled();
  if (isUncertain(error.code)) {
    // Not an attempt that failed: nobody knows, and the next one has the same request id.
    const retryAt = context.retryTime(1);
    return context.enter(
      { kind: 'waiting', retryAt, uncertain: true },
      `${context.task.source} did not answer, asked again: ${error.message}`,
    );
  }
  await context.attemptFailed(plainError(error), stop);
};
