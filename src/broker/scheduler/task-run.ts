import type { Clock } from '../../leaves/clock.js';
import { formatDuration } from '../../leaves/duration.js';
import type { PlainError } from '../../leaves/errors.js';
import { MigrateFsError, plainError } from '../../leaves/errors.js';
import type { LogSink } from '../../leaves/log-sink.js';
import type { MigrationSnapshot } from '../../leaves/migration.js';
import { formatSize } from '../../leaves/quantity.js';
import { isTaskFinal, NO_DRIVER } from '../../leaves/scheduler.js';
import type { Millis } from '../../leaves/units.js';
import { millis } from '../../leaves/units.js';
import type { HostControl } from './host-control.js';
import { isUncertain } from './host-control.js';
import type { HypervisorDriver, MoveJob } from './hypervisor-driver.js';
import { cancelMigration, findMigration } from './migration-cancel.js';
import { Backoff, watchMigration } from './migration-watch.js';
import type { MoveSlots } from './move-slots.js';
import { targetOwns } from './target-ownership.js';
import type { Task, TaskState } from './task.js';
import type { TaskBook } from './task-book.js';

/** Before an attempt that follows one that failed; doubled for each further one. */
const ATTEMPT_DELAY = millis(2_000);
const ATTEMPT_DELAY_MAX = millis(60_000);
/** What no further attempt would change. */
const PERMANENT: readonly string[] = ['INVALID_ARGUMENT', 'ALREADY_EXISTS', 'PERMISSION_DENIED', 'NOT_FOUND'];

/** What the runs of all tasks have in common. */
export interface RunEnvironment {
  readonly book: TaskBook;
  readonly hosts: HostControl;
  /** By name; `none` is not among them. */
  readonly drivers: ReadonlyMap<string, HypervisorDriver>;
  readonly moves: MoveSlots;
  readonly clock: Clock;
  readonly log: LogSink;
  /** The store's: makes request ids unlike those of any other scheduler. */
  readonly storeId: string;
  readonly attemptsMax: number;
  /** How long the VM's first write on the target is waited for before the images are handed over without it. */
  readonly firstWriteWait: Millis;
  readonly vmmTime: Millis;
  /** The migration of a task has begun or ended, so paths and sharers of others are different now. */
  readonly onMigration: () => void;
}

class Cancelled extends Error {}

type Step = 'starting' | 'copying' | 'handing-over' | 'finishing' | 'rolling-back';

/** Brings one task from the start of its migration to its end, step by step; each begins with what is on disk. */
export class TaskRun {
  readonly #env: RunEnvironment;
  readonly #id: string;
  /** Aborts steps that a cancellation may interrupt. */
  readonly #cancel = new AbortController();

  constructor(env: RunEnvironment, id: string) {
    this.#env = env;
    this.#id = id;
  }

  /** The wish is on disk already. */
  cancel(): void {
    this.#cancel.abort(new Cancelled());
  }

  /** Resolves when the task waits again or has ended, or when `stop` aborts: then it goes on after a restart. */
  async run(stop: AbortSignal): Promise<void> {
    if (this.#task.cancelWanted) this.cancel();
    for (;;) {
      const { kind } = this.#task.state;
      if (stop.aborted || kind === 'waiting' || isTaskFinal(kind)) return;
      try {
        await this.#steps[kind as Step](stop);
      } catch (error) {
        if (stop.aborted) return;
        if (error instanceof Cancelled) this.#beginRollBack('cancelled', 'asked for', 'CANCELLED');
        else this.#onDefect(error);
      }
    }
  }

  readonly #steps: Readonly<Record<Step, (stop: AbortSignal) => Promise<void>>> = {
    starting: (stop) => this.#start(stop),
    copying: (stop) => this.#copy(AbortSignal.any([stop, this.#cancel.signal])),
    'handing-over': (stop) => this.#handOver(AbortSignal.any([stop, this.#cancel.signal])),
    finishing: (stop) => this.#finish(stop),
    'rolling-back': (stop) => this.#rollBack(stop),
  };

  get #task(): Task {
    return this.#env.book.get(this.#id);
  }

  #enter(state: TaskState, text: string, change: Parameters<TaskBook['transition']>[3] = {}): void {
    this.#env.book.transition(this.#id, state, text, change);
  }

  #requestId(): string {
    return `${this.#env.storeId}-${this.#id}-${this.#task.attempt}`;
  }

  /** A bug must not leave a migration behind that nobody looks after. */
  #onDefect(error: unknown): void {
    this.#env.log('error', 'internal error in a task', { task: this.#id, err: error });
    const text = `internal error: ${error instanceof Error ? error.message : String(error)}`;
    const { state } = this.#task;
    if (state.kind === 'finishing' || state.kind === 'rolling-back')
      this.#enter({ kind: 'failed', error: { code: 'INTERNAL', message: text } }, text);
    else this.#beginRollBack('failed', text, 'INTERNAL');
  }

  async #start(stop: AbortSignal): Promise<void> {
    const { hosts, vmmTime, clock } = this.#env;
    const task = this.#task;
    // The answer is waited for even when the task is to be cancelled: only with it is known what there is to cancel.
    let snapshot: MigrationSnapshot;
    try {
      const late = task.deadline !== undefined && task.deadline <= clock.wall();
      snapshot = await hosts.start(
        task.source,
        {
          requestId: this.#requestId(),
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
      await this.#notStarted(error, stop);
      return;
    }
    if (this.#cancel.signal.aborted)
      return this.#beginRollBack('cancelled', 'asked for', 'CANCELLED', snapshot.id);
    const moved = `${formatSize(snapshot.bytesTotal)} to copy`;
    this.#enter(
      { kind: 'copying', migrationId: snapshot.id },
      `migration ${snapshot.id} started at ${task.source}, ${moved}`,
      { migrationId: snapshot.id },
    );
    this.#env.onMigration();
  }

  async #notStarted(error: MigrateFsError, stop: AbortSignal): Promise<void> {
    if (this.#cancel.signal.aborted) throw new Cancelled();
    if (isUncertain(error.code)) {
      // Not an attempt that failed: nobody knows, and the next one has the same request id.
      const retryAt = this.#retryTime(1);
      return this.#enter(
        { kind: 'waiting', retryAt, uncertain: true },
        `${this.#task.source} did not answer, asked again: ${error.message}`,
      );
    }
    await this.#attemptFailed(plainError(error), stop);
  }

  async #copy(signal: AbortSignal): Promise<void> {
    const { hosts, clock } = this.#env;
    const { source, driver, vmMoved, state } = this.#task;
    const migrationId = (state as { migrationId: string }).migrationId;
    let troubled = false;
    for await (const view of watchMigration(hosts, source, migrationId, clock, signal)) {
      // A cancellation that was answered counts before a report that is newer.
      signal.throwIfAborted();
      if (view.kind === 'gone') return this.#forgotten(signal);
      if (view.kind === 'unreachable') {
        if (!troubled) this.#env.book.note(this.#id, `${source} cannot be asked: ${view.error.message}`);
        troubled = true;
        continue;
      }
      if (troubled) this.#env.book.note(this.#id, `${source} answers again`);
      troubled = false;
      this.#report(view.snapshot);
      const done = await this.#onCopyReport(
        view.snapshot,
        migrationId,
        driver === NO_DRIVER || vmMoved,
        signal,
      );
      if (done) return;
    }
  }

  /** Whether the step is over. */
  async #onCopyReport(
    snapshot: MigrationSnapshot,
    migrationId: string,
    nothingToMove: boolean,
    signal: AbortSignal,
  ): Promise<boolean> {
    switch (snapshot.state) {
      case 'mirroring':
      case 'cutover': {
        if (nothingToMove)
          this.#enter({ kind: 'finishing', migrationId }, 'in sync: handing the images over');
        else await this.#beginHandOver(migrationId, signal);
        return true;
      }
      case 'completed':
        this.#enter({ kind: 'done' }, `the target owns the images; not by this scheduler's doing`);
        return true;
      case 'cancelled':
        this.#fail('CANCELLED', `migration ${migrationId} was cancelled at ${this.#task.source}`);
        return true;
      case 'failed':
        await this.#attemptFailed(snapshot.error ?? { code: 'ABORTED', message: 'no reason given' }, signal);
        return true;
      default:
        return false;
    }
  }

  /** Waits for a place among the moves of both hosts, and moves the VM. */
  async #beginHandOver(migrationId: string, signal: AbortSignal): Promise<void> {
    const { moves, book } = this.#env;
    const { source, target, driver } = this.#task;
    const hosts = [source, target];
    const waits = !hosts.every((host) => moves.isFree(host));
    if (waits) book.note(this.#id, `in sync; waits for other moves of ${source} or ${target}`);
    const release = await moves.take(hosts, signal);
    try {
      this.#enter(
        { kind: 'handing-over', migrationId },
        `in sync${waits ? ' still' : ''}: driver ${driver} moves the VM to ${target}`,
      );
      await this.#handOver(signal);
    } finally {
      release();
    }
  }

  async #handOver(signal: AbortSignal): Promise<void> {
    const { hosts, clock } = this.#env;
    const { source, state } = this.#task;
    if (state.kind !== 'handing-over') return;
    const { migrationId } = state;
    const driver = this.#driver();
    const broken = new AbortController();
    const follow = async (): Promise<void> => {
      for await (const view of watchMigration(hosts, source, migrationId, clock, both)) {
        if (view.kind === 'seen') this.#report(view.snapshot);
        const ended = view.kind === 'seen' && ['failed', 'cancelled'].includes(view.snapshot.state);
        if (view.kind === 'gone' || ended) broken.abort(this.#brokenMigration(view));
      }
    };
    const over = new AbortController();
    const both = AbortSignal.any([signal, over.signal]);
    const following = follow().catch(() => undefined);
    try {
      await driver.move(this.#job(migrationId), AbortSignal.any([signal, broken.signal]));
      over.abort();
      this.#enter(
        { kind: 'finishing', migrationId },
        `${this.#cancel.signal.aborted ? 'too late to cancel: ' : ''}the driver has moved the VM`,
        { vmMoved: true, cancelWanted: false },
      );
    } catch (error) {
      signal.throwIfAborted();
      if (!(error instanceof MigrateFsError)) throw error;
      this.#beginRollBack('failed', error.message, error.code);
    } finally {
      over.abort();
      await following;
    }
  }

  #brokenMigration(view: { readonly kind: string; readonly snapshot?: MigrationSnapshot }): MigrateFsError {
    const why =
      view.snapshot?.error?.message ?? (view.snapshot ? view.snapshot.state : 'its daemon forgot it');
    return new MigrateFsError('ABORTED', `the migration ended while the VM was being moved: ${why}`);
  }

  /** The VM runs on the target, or there is none: only forward from here. */
  async #finish(stop: AbortSignal): Promise<void> {
    const { hosts, clock, firstWriteWait } = this.#env;
    const { source, driver, attempt, state } = this.#task;
    const { migrationId } = state as { migrationId: string };
    // The first write of the VM hands the images over with the least delay for it.
    const patience = driver === NO_DRIVER || attempt > 1 ? millis(0) : firstWriteWait;
    const overdue = new AbortController();
    const forget = clock.after(patience, () => overdue.abort());
    let inSync = false;
    const over = new AbortController();
    const signal = AbortSignal.any([stop, over.signal]);
    const handOver = async (): Promise<void> => {
      await aborted(overdue.signal, signal);
      const backoff = new Backoff(clock);
      while (!signal.aborted) {
        if (inSync) {
          try {
            await hosts.cutover(source, migrationId, signal);
          } catch (error) {
            // The migration itself says what became of it.
            if (!signal.aborted) this.#env.log('debug', 'cutover refused', { task: this.#id, err: error });
          }
        }
        await backoff.wait(signal);
      }
    };
    const handing = handOver().catch(() => undefined);
    try {
      for await (const view of watchMigration(hosts, source, migrationId, clock, signal)) {
        if (view.kind === 'unreachable') continue;
        if (view.kind === 'gone') return await this.#forgotten(stop);
        const { snapshot } = view;
        this.#report(snapshot);
        inSync = snapshot.state === 'mirroring';
        if (snapshot.state === 'completed') return this.#done(snapshot);
        if (snapshot.state === 'failed' || snapshot.state === 'cancelled')
          return await this.#attemptFailed(
            snapshot.error ?? { code: 'ABORTED', message: `migration ${migrationId} is ${snapshot.state}` },
            stop,
          );
      }
    } finally {
      forget();
      over.abort();
      await handing;
    }
  }

  #done({ cutoverStall }: MigrationSnapshot): void {
    const stall = cutoverStall === undefined ? '' : `, cutover stall ${formatDuration(cutoverStall)}`;
    const { deadline } = this.#task;
    const left = deadline === undefined ? undefined : deadline - this.#env.clock.wall();
    const margin =
      left === undefined
        ? ''
        : left >= 0
          ? `, ${formatDuration(left)} before the deadline`
          : `, ${formatDuration(-left)} after the deadline`;
    this.#enter({ kind: 'done' }, `${this.#task.target} owns the images${stall}${margin}`);
    this.#env.onMigration();
  }

  async #rollBack(stop: AbortSignal): Promise<void> {
    const { state, source, target } = this.#task;
    if (state.kind !== 'rolling-back') return;
    const notes: string[] = [];
    let migrationId = state.migrationId;
    if (state.driven) {
      const job = this.#job(migrationId!);
      if ((await this.#driver().stop(job)) === 'moved')
        return this.#enter(
          { kind: 'finishing', migrationId: migrationId! },
          'too late to cancel: the driver had moved the VM',
          { vmMoved: true, cancelWanted: false },
        );
      try {
        await this.#driver().rollBack(job, stop);
      } catch (error) {
        stop.throwIfAborted();
        if (!(error instanceof MigrateFsError)) throw error;
        notes.push(error.message);
      }
    }
    try {
      migrationId ??= await findMigration(this.#env, this.#task.source, this.#requestId(), stop);
      if (
        migrationId !== undefined &&
        (await cancelMigration(this.#env, source, migrationId, stop)) === 'completed'
      ) {
        if (!state.driven)
          return this.#enter({ kind: 'done' }, `too late to cancel: ${target} owns the images`);
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
    if (state.outcome === 'failed') this.#enter({ kind: 'failed', error }, message);
    else
      this.#enter(
        { kind: 'cancelled', ...(notes.length > 0 && { error }) },
        ['cancelled; the VM stays on the source', ...notes].join('; '),
      );
    this.#env.onMigration();
  }

  /** The source daemon does not know the migration: it was restarted, or dropped one that ended long ago. */
  async #forgotten(signal: AbortSignal): Promise<void> {
    await this.#attemptFailed(
      { code: 'NOT_FOUND', message: `${this.#task.source} does not know the migration any more` },
      signal,
    );
  }

  /** Another attempt, unless the target has the images already, or enough was tried. */
  async #attemptFailed(error: PlainError, signal: AbortSignal): Promise<void> {
    const { attempt, target, vmMoved } = this.#task;
    const owner = await targetOwns(this.#env.hosts, this.#task, signal);
    if (owner === true) {
      this.#enter({ kind: 'done' }, `${target} owns the images (${error.message})`);
      this.#env.onMigration();
      return;
    }
    const forgotten = this.#task.state.kind !== 'starting' && error.code === 'NOT_FOUND';
    const hopeless = PERMANENT.includes(error.code) && !forgotten;
    if (hopeless || attempt >= this.#env.attemptsMax) {
      const after = attempt > 1 ? ` (attempt ${attempt})` : '';
      const where = vmMoved ? `; the VM is on ${target} already, its disks are not` : '';
      return this.#fail(error.code, `${error.message}${after}${where}`);
    }
    const retryAt = this.#retryTime(attempt);
    this.#enter(
      { kind: 'waiting', retryAt },
      `attempt ${attempt} of ${this.#env.attemptsMax} failed: ${error.message}; ` +
        `the next one in ${formatDuration(retryAt - this.#env.clock.wall())}`,
    );
    this.#env.onMigration();
  }

  #retryTime(failures: number): Millis {
    const delay = Math.min(ATTEMPT_DELAY_MAX, ATTEMPT_DELAY * 2 ** (failures - 1));
    return millis(this.#env.clock.wall() + delay);
  }

  #fail(code: PlainError['code'], message: string): void {
    this.#enter({ kind: 'failed', error: { code, message } }, message);
    this.#env.onMigration();
  }

  #beginRollBack(
    outcome: 'failed' | 'cancelled',
    message: string,
    code: PlainError['code'],
    known?: string,
  ): void {
    const { state } = this.#task;
    const migrationId = known ?? ('migrationId' in state ? state.migrationId : undefined);
    this.#enter(
      {
        kind: 'rolling-back',
        ...(migrationId !== undefined && { migrationId }),
        driven: state.kind === 'handing-over',
        outcome,
        error: { code, message },
      },
      outcome === 'cancelled' ? 'being cancelled' : `being undone: ${message}`,
      migrationId === undefined ? {} : { migrationId },
    );
  }

  #report({ bytesLeft, netRate, dirtyRate, eta, state }: MigrationSnapshot): void {
    const inSync = state === 'mirroring' || state === 'cutover';
    const left = inSync ? millis(0) : eta;
    this.#env.book.setProgress(this.#id, {
      bytesLeft,
      netRate,
      dirtyRate,
      ...(left !== undefined && { eta: left }),
    });
  }

  #driver(): HypervisorDriver {
    const { driver } = this.#task;
    const found = this.#env.drivers.get(driver);
    if (!found)
      throw new MigrateFsError(
        'FAILED_PRECONDITION',
        `the scheduler's configuration has no driver '${driver}' any more`,
      );
    return found;
  }

  #job(migrationId: string): MoveJob {
    const { attempt, vm, images, source, target, deadline } = this.#task;
    return {
      task: this.#id,
      attempt,
      vm,
      images,
      source,
      target,
      migrationId,
      ...(deadline !== undefined && { deadline }),
    };
  }
}

/** Resolves when `signal` aborts; rejects when `end` aborts first. */
const aborted = (signal: AbortSignal, end?: AbortSignal): Promise<void> =>
  new Promise((resolve, reject) => {
    if (signal.aborted) return resolve();
    if (end?.aborted) return reject(end.reason as Error);
    signal.addEventListener('abort', () => resolve(), { once: true });
    end?.addEventListener('abort', () => reject(end.reason as Error), { once: true });
  });
