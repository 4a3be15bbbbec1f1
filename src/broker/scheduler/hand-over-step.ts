/** Step `handing-over`: a driver moves the VM. */
import { formatDuration } from '../../leaves/duration.js';
import { MigrateFsError } from '../../leaves/errors.js';
import type { MigrationSnapshot } from '../../leaves/migration.js';
import { millis } from '../../leaves/units.js';
import { firstWritePatience } from './finish-step.js';
import type { MoveProgress } from './hypervisor-driver.js';
import { watchMigration } from './migration-watch.js';
import type { RunContext } from './run-context.js';

/** Between two reports of a move that are shown. */
const REPORT_PERIOD = millis(500);

/** Waits for a place among the moves of both hosts, and moves the VM. */
export const beginHandOver = async (
  context: RunContext,
  migrationId: string,
  signal: AbortSignal,
): Promise<void> => {
  const { moves, book } = context.env;
  const { source, target, driver } = context.task;
  try {
    context.driver();
  } catch (error) {
    if (!(error instanceof MigrateFsError)) throw error;
    return context.beginRollBack('failed', error.message, error.code);
  }
  const hosts = [source, target];
  const waits = !hosts.every((host) => moves.isFree(host));
  if (waits) book.note(context.id, `in sync; waits for other moves of ${source} or ${target}`);
  const release = await moves.take(hosts, signal);
  try {
    context.enter(
      { kind: 'handing-over', migrationId },
      `in sync${waits ? ' still' : ''}: driver ${driver} moves the VM to ${target}`,
    );
    await handOver(context, signal);
  } finally {
    release();
  }
};

/** Goes on with a move that a scheduler before this one has begun; it had its places. */
export const resumeHandOver = async (context: RunContext, signal: AbortSignal): Promise<void> => {
  const { source, target } = context.task;
  const release = await context.env.moves.take([source, target], signal);
  try {
    await handOver(context, signal);
  } finally {
    release();
  }
};

const handOver = async (context: RunContext, signal: AbortSignal): Promise<void> => {
  const { hosts, clock } = context.env;
  const { source, target, state } = context.task;
  if (state.kind !== 'handing-over') return;
  const { migrationId } = state;
  const broken = new AbortController();
  const follow = async (): Promise<void> => {
    for await (const view of watchMigration(hosts, source, migrationId, clock, both)) {
      if (view.kind === 'seen') context.report(view.snapshot);
      const ended = view.kind === 'seen' && ['failed', 'cancelled'].includes(view.snapshot.state);
      if (view.kind === 'gone' || ended) broken.abort(brokenMigration(view));
    }
  };
  const over = new AbortController();
  const both = AbortSignal.any([signal, over.signal]);
  const following = follow().catch(() => undefined);
  const progress = new MoveReports(context);
  try {
    await context
      .driver()
      .move(context.job(migrationId), AbortSignal.any([signal, broken.signal]), progress.take);
    over.abort();
    const { vmDowntime } = progress.last;
    const patience = firstWritePatience(context);
    const next =
      patience > 0
        ? `; ${target} takes the images over at its first write, or after ${formatDuration(patience)}`
        : '';
    const still = vmDowntime === undefined ? '' : `, which stood still for ${formatDuration(vmDowntime)}`;
    context.enter(
      { kind: 'finishing', migrationId },
      `${context.cancelled.aborted ? 'too late to cancel: ' : ''}the driver has moved the VM${still}${next}`,
      { vmMoved: true, cancelWanted: false, ...(vmDowntime !== undefined && { vmDowntime }) },
    );
  } catch (error) {
    signal.throwIfAborted();
    if (!(error instanceof MigrateFsError)) throw error;
    context.beginRollBack('failed', error.message, error.code);
  } finally {
    over.abort();
    await following;
  }
};

/** What a driver reports of its move, shown now and then. */
class MoveReports {
  readonly #context: RunContext;
  #last: MoveProgress = {};
  #shownAt = Number.NEGATIVE_INFINITY;

  constructor(context: RunContext) {
    this.#context = context;
  }

  get last(): MoveProgress {
    return this.#last;
  }

  readonly take = (progress: MoveProgress): void => {
    this.#last = progress;
    const { clock, book } = this.#context.env;
    if (clock.now() - this.#shownAt < REPORT_PERIOD) return;
    this.#shownAt = clock.now();
    book.setMove(this.#context.id, progress);
  };
}

const brokenMigration = (view: {
  readonly kind: string;
  readonly snapshot?: MigrationSnapshot;
}): MigrateFsError => {
  const why = view.snapshot?.error?.message ?? (view.snapshot ? view.snapshot.state : 'its daemon forgot it');
  return new MigrateFsError('ABORTED', `the migration ended while the VM was being moved: ${why}`);
};
