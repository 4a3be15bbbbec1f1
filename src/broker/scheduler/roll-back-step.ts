/** Step `rolling-back`: the driver is ended and rolled back, the migration cancelled. */
import type { PlainError } from '../../leaves/errors.js';
import { MigrateFsError } from '../../leaves/errors.js';
import { cancelMigration, findMigration } from './migration-cancel.js';
import type { RunContext } from './run-context.js';

export const rollBack = async (context: RunContext, stop: AbortSignal): Promise<void> => {
  const { state, source, target } = context.task;
  if (state.kind !== 'rolling-back') return;
  const notes: string[] = [];
  let migrationId = state.migrationId;
  if (state.driven) {
    const job = context.job(migrationId!);
    if ((await context.driver().stop(job)) === 'moved')
      return context.enter(
        { kind: 'finishing', migrationId: migrationId! },
        'too late to cancel: the driver had moved the VM',
        { vmMoved: true, cancelWanted: false },
      );
    try {
      await context.driver().rollBack(job, stop);
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
