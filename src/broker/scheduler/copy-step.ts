/** Step `copying`: until both sides are in sync. */
import type { MigrationSnapshot } from '../../leaves/migration.js';
import { NO_DRIVER } from '../../leaves/scheduler.js';
import { beginHandOver } from './hand-over-step.js';
import { watchMigration } from './migration-watch.js';
import type { RunContext } from './run-context.js';

const COPIES: readonly MigrationSnapshot['state'][] = ['bulk-copy', 'dirty-resend'];
/** What copying may follow that was over, or stood still. */
const HALTS: readonly MigrationSnapshot['state'][] = ['interrupted', 'paused', 'mirroring'];

export const copyDisks = async (context: RunContext, signal: AbortSignal): Promise<void> => {
  const { hosts, clock } = context.env;
  const { source, driver, vmMoved } = context.task;
  const { migrationId } = context.task.state as { readonly migrationId: string };
  let troubled = false;
  let state: MigrationSnapshot['state'] | undefined;
  for await (const view of watchMigration(hosts, source, migrationId, clock, signal)) {
    // A cancellation that was answered counts before a report that is newer.
    signal.throwIfAborted();
    if (view.kind === 'gone') return context.forgotten(signal);
    if (view.kind === 'unreachable') {
      if (!troubled) context.env.book.note(context.id, `${source} cannot be asked: ${view.error.message}`);
      troubled = true;
      continue;
    }
    if (troubled) context.env.book.note(context.id, `${source} answers again`);
    troubled = false;
    context.report(view.snapshot);
    noteHalt(context, view.snapshot, state);
    ({ state } = view.snapshot);
    const done = await onReport(context, view.snapshot, migrationId, driver === NO_DRIVER || vmMoved, signal);
    if (done) return;
  }
};

/** Says when the copying stands still, and when it goes on. */
const noteHalt = (
  { env: { book }, id, task: { source, target } }: RunContext,
  { state, error }: MigrationSnapshot,
  before: MigrationSnapshot['state'] | undefined,
): void => {
  if (state === before) return;
  if (state === 'interrupted')
    book.note(id, `${source} has lost ${target} and tries again: ${error?.message ?? 'no reason given'}`);
  else if (state === 'paused') book.note(id, `paused at ${source}`);
  else if (before !== undefined && HALTS.includes(before) && COPIES.includes(state))
    book.note(id, 'copies again');
};

/** Whether the step is over. */
const onReport = async (
  context: RunContext,
  snapshot: MigrationSnapshot,
  migrationId: string,
  nothingToMove: boolean,
  signal: AbortSignal,
): Promise<boolean> => {
  switch (snapshot.state) {
    case 'mirroring':
    case 'cutover': {
      if (!nothingToMove) return beginHandOver(context, migrationId, signal);
      context.enter({ kind: 'finishing', migrationId }, 'in sync: handing the images over');
      return true;
    }
    case 'completed':
      context.enter({ kind: 'done' }, `the target owns the images; not by this scheduler's doing`);
      return true;
    case 'cancelled':
      context.fail('CANCELLED', `migration ${migrationId} was cancelled at ${context.task.source}`);
      return true;
    case 'failed':
      await context.attemptFailed(snapshot.error ?? { code: 'ABORTED', message: 'no reason given' }, signal);
      return true;
    default:
      return false;
  }
};
