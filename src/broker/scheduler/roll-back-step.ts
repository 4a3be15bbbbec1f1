/** Step `rolling-back`: the driver is ended and rolled back, the migration cancelled. */
import type { PlainError } from '../../leaves/errors.js';
import { MigrateFsError } from '../../leaves/errors.js';
import type { MoveJob } from './hypervisor-driver.js';
import { cancelMigration, findMigration } from './migration-cancel.js';
import type { RunContext } from './run-context.js';
import { targetOwns } from './target-ownership.js';

/** An error: the driver cannot tell. */
const stopMove = async (
  context: RunContext,
  job: MoveJob,
): Promise<'moved' | 'not-moved' | MigrateFsError> => {
  try {
    return await context.driver().stop(job);
  } catch (error) {
    if (error instanceof MigrateFsError) return error;
    throw error;
  }
};

export const rollBack = async (context: RunContext, stop: AbortSignal): Promise<void> => {
  const { state, source, target } = context.task;
  if (state.kind !== 'rolling-back') return;
  const notes: string[] = [];
  let migrationId = state.migrationId;
  if (state.driven) {
    const job = context.job(migrationId!);
    const outcome = await stopMove(context, job);
    const owned = outcome !== 'moved' && (await targetOwns(context.env.hosts, context.task, stop)) === true;
    if (outcome instanceof MigrateFsError && !owned) {
      // Cancelling would take the images from a VM that may run on the target.
      const message = `${state.error.message}; whether the driver had moved the VM is not known (${outcome.message}): see where it runs, then \`migratefs cutover\` or \`migratefs cancel\` ${migrationId} at ${source}`;
      return context.enter({ kind: 'failed', error: { code: state.error.code, message } }, message);
    }
    if (outcome !== 'not-moved')
      return context.enter(
        { kind: 'finishing', migrationId: migrationId! },
        outcome === 'moved'
          ? 'too late to cancel: the driver had moved the VM'
          : `the VM has written on ${target} (${outcome.message})`,
        { vmMoved: true, cancelWanted: false },
      );
    try {
      // At the source its disks are fenced by now.
      if (!owned) await context.driver().rollBack(job, stop);
    } catch (error) {
      stop.throwIfAborted();
      if (!(error instanceof MigrateFsError)) throw error;
      notes.push(error.message);
    }
  }
  try {
    migrationId ??= await findMigration(context.env, context.task.source, context.requestId(), stop);
    if (
      migrationId !== undefined &&
      (await cancelMigration(context.env, source, migrationId, stop)) === 'completed'
    ) {
      if (!state.driven)
        return context.enter({ kind: 'done' }, `too late to cancel: ${target} owns the images`);
      notes.push(`${target} owns the images all the same: the VM has to run there`);
    }
  } catch (error) {
    stop.throwIfAborted();
    if (!(error instanceof MigrateFsError)) throw error;
    const what = migrationId === undefined ? 'whether there is a migration' : `migration ${migrationId}`;
    notes.push(
      `${what} could not be cancelled (${error.message}): look at \`migratefs status\` of ${source} and cancel it there`,
    );
  }
  const message = [state.error.message, ...notes].join('; ');
  const error: PlainError = { code: state.error.code, message };
  if (state.outcome === 'failed') context.enter({ kind: 'failed', error }, message);
  else
    context.enter(
      { kind: 'cancelled', ...(notes.length > 0 && { error }) },
      ['cancelled; the VM stays on the source', ...notes].join('; '),
    );
  context.env.onMigration();
};
