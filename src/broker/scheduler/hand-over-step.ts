/** Step `handing-over`: a driver moves the VM. */
import { formatDuration } from '../../leaves/duration.js';
import { MigrateFsError } from '../../leaves/errors.js';
import { isFinal } from '../../leaves/migration.js';
import { millis } from '../../leaves/units.js';
import { firstWritePatience } from './finish-step.js';
import type { MoveJob, MoveProgress } from './hypervisor-driver.js';
import type { MigrationView } from './migration-watch.js';
import { watchMigration } from './migration-watch.js';
import type { RunContext } from './run-context.js';

/** Between two reports of a move that are shown. */
const REPORT_PERIOD = millis(500);

/**
 * Waits for a place among the moves of both hosts, and moves the VM. False: it was not begun, because the disks are not in
 * sync any more.
 */
export const beginHandOver = async (
  context: RunContext,
  migrationId: string,
  signal: AbortSignal,
): Promise<boolean> => {
  const { source, target, driver } = context.task;
  try {
    context.driver();
  } catch (error) {
    if (!(error instanceof MigrateFsError)) throw error;
    context.beginRollBack('failed', error.message, error.code);
    return true;
  }
  const { moves, book } = context.env;
  const waits = ![source, target].every((host) => moves.isFree(host));
  if (waits) book.note(context.id, `in sync; waits for other moves of ${source} or ${target}`);
  const release = await placeWhileInSync(context, migrationId, signal);
  if (!release) return false;
  try {
    context.enter(
      { kind: 'handing-over', migrationId },
      `in sync${waits ? ' still' : ''}: driver ${driver} moves the VM to ${target}`,
    );
    await handOver(context, context.job(migrationId, true), signal);
  } finally {
    release();
  }
  return true;
};

/** Goes on with a move that a scheduler before this one has begun; it had its places. */
export const resumeHandOver = async (context: RunContext, signal: AbortSignal): Promise<void> => {
  const { source, target, state } = context.task;
  if (state.kind !== 'handing-over') return;
  const take = (): Promise<() => void> => context.env.moves.take([source, target], signal);
  const { release, answer } = await takePlaces(context, state.migrationId, signal, take);
  try {
    // Perhaps it was not begun, and a driver that is asked for it begins.
    if (isInSync(answer)) await handOver(context, context.job(state.migrationId), signal);
    else breakOff(context, outOfSync(answer));
  } finally {
    release();
  }
};

/** Resolves with how to give the places back, as soon as they are free; undefined: the disks are not in sync any more. */
const placeWhileInSync = async (
  context: RunContext,
  migrationId: string,
  signal: AbortSignal,
): Promise<(() => void) | undefined> => {
  const { source, target } = context.task;
  const take = (): Promise<() => void> =>
    whileInSync(context, migrationId, signal, (inSync) => context.env.moves.take([source, target], inSync));
  try {
    // What is followed may be late, where the source could not be asked.
    const { release, answer } = await takePlaces(context, migrationId, signal, take);
    if (isInSync(answer) && !isEnded(answer)) return release;
    release();
  } catch (error) {
    if (signal.aborted || !(error instanceof MigrateFsError)) throw error;
  }
  return undefined;
};

interface Places {
  readonly release: () => void;
  /** Of the source, given while the places were held. */
  readonly answer: Answer;
}

/** While the source does not answer, others have the places. */
const takePlaces = async (
  context: RunContext,
  migrationId: string,
  signal: AbortSignal,
  take: () => Promise<() => void>,
): Promise<Places> => {
  for (;;) {
    const release = await take();
    try {
      const answer = await look(context, migrationId, signal);
      if (answer.kind !== 'unreachable') return { release, answer };
    } catch (error) {
      release();
      throw error;
    }
    release();
    await answered(context, migrationId, signal);
  }
};

/** Calls `work` with a signal that aborts, with an error that says why, as soon as the disks are not in sync any more. */
const whileInSync = async <T>(
  context: RunContext,
  migrationId: string,
  signal: AbortSignal,
  work: (inSync: AbortSignal) => Promise<T>,
): Promise<T> => {
  const { hosts, clock } = context.env;
  const lost = new AbortController();
  const over = new AbortController();
  const ended = AbortSignal.any([signal, over.signal]);
  const follow = async (): Promise<void> => {
    for await (const view of watchMigration(hosts, context.task.source, migrationId, clock, ended)) {
      if (view.kind === 'seen') context.report(view.snapshot);
      if (view.kind !== 'unreachable' && !isInSync(view)) lost.abort(outOfSync(view));
    }
  };
  const following = follow().catch(() => undefined);
  try {
    return await work(AbortSignal.any([signal, lost.signal]));
  } finally {
    over.abort();
    await following;
  }
};

const handOver = async (context: RunContext, job: MoveJob, signal: AbortSignal): Promise<void> => {
  const { target, migrationId } = job;
  const progress = new MoveReports(context);
  try {
    await whileInSync(context, migrationId, signal, (inSync) =>
      context.driver().move(job, inSync, progress.take),
    );
  } catch (error) {
    signal.throwIfAborted();
    if (!(error instanceof MigrateFsError)) throw error;
    return breakOff(context, error);
  }
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
};

const breakOff = (context: RunContext, { message, code }: MigrateFsError): void =>
  context.beginRollBack('failed', message, code);

type Answer = Exclude<MigrationView, { readonly kind: 'unreachable' }>;

/** What the source says of the migration now. */
const look = async (
  { env: { hosts, clock }, task }: RunContext,
  migrationId: string,
  signal: AbortSignal,
): Promise<MigrationView> => {
  for await (const view of watchMigration(hosts, task.source, migrationId, clock, signal)) return view;
  throw new Error('a watch of a migration ended before it began');
};

/** Resolves when the source answers. */
const answered = async (
  { env: { hosts, clock }, task }: RunContext,
  migrationId: string,
  signal: AbortSignal,
): Promise<void> => {
  for await (const { kind } of watchMigration(hosts, task.source, migrationId, clock, signal))
    if (kind !== 'unreachable') return;
};

/** Whether the target has every write of the guest, as a VM that is moved there needs. */
const isInSync = (view: Answer): boolean =>
  view.kind === 'seen' && ['mirroring', 'cutover', 'completed'].includes(view.snapshot.state);

const isEnded = (view: Answer): boolean => view.kind === 'gone' || isFinal(view.snapshot.state);

const outOfSync = (view: Answer): MigrateFsError => {
  if (view.kind === 'gone') return ended('its daemon forgot it');
  const { state, error } = view.snapshot;
  if (isEnded(view)) return ended(error?.message ?? state);
  return new MigrateFsError(
    'ABORTED',
    `the disks were not in sync any more while the VM was being moved (${state}${error ? `: ${error.message}` : ''})`,
  );
};

const ended = (why: string): MigrateFsError =>
  new MigrateFsError('ABORTED', `the migration ended while the VM was being moved: ${why}`);

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
