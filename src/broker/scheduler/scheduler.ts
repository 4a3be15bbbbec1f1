import { setMaxListeners } from 'node:events';
import { MigrateFsError } from '../../leaves/errors.js';
import type {
  SchedulerControl,
  TaskDecision,
  TaskPage,
  TaskQuery,
  TaskRequest,
  TaskSnapshot,
} from '../../leaves/scheduler.js';
import { isTaskFinal } from '../../leaves/scheduler.js';
import type { Millis } from '../../leaves/units.js';
import { millis } from '../../leaves/units.js';
import { BrokerLiaison } from './broker-liaison.js';
import { Intake, type IntakeOptions } from './intake.js';
import { Planner, type PlannerOptions } from './planner.js';
import { type RunEnvironment, retryAfter } from './run-context.js';
import type { Task } from './task.js';
import { isActive } from './task.js';
import { TaskRuns } from './task-runs.js';
import { recorded } from './task-store.js';
import { WaitReasons } from './wait-reasons.js';

/** Between two plans when nothing happens. */
const PLAN_PERIOD = millis(1_000);
/** A plan that took long is made again after so many times as long. */
const PLAN_REST = 10;
/** Links that are named where many are saturated. */
const HOT_MAX = 100;

export type SchedulerOptions = Omit<RunEnvironment, 'onMigration'> & PlannerOptions & IntakeOptions;

/** Plans, starts, follows and closes tasks. */
export class Scheduler implements SchedulerControl, AsyncDisposable {
  readonly #options: SchedulerOptions;
  readonly #liaison: BrokerLiaison;
  readonly #stop = new AbortController();
  readonly #runs: TaskRuns;
  readonly #planner: Planner;
  readonly #intake: Intake;
  readonly #reasons: WaitReasons;
  #working: Promise<unknown> = Promise.resolve();
  #unwatch: () => void = () => {};
  #wake: () => void = () => {};
  #planned = true;

  constructor(options: SchedulerOptions) {
    this.#options = options;
    const { book, drivers, clock } = options;
    const { signal } = this.#stop;
    this.#liaison = new BrokerLiaison(options);
    this.#planner = new Planner(options);
    this.#reasons = new WaitReasons(book, clock);
    const env = { ...options, onMigration: () => this.#liaison.changed() };
    this.#runs = new TaskRuns(env, signal, () => this.#planSoon());
    this.#intake = new Intake(options, this.#planner, signal, () => this.#planSoon());
    // Every call under way listens.
    setMaxListeners(0, signal);
    book.onForgotten((id) => {
      for (const driver of drivers.values()) driver.forget(id);
      this.#reasons.forget(id);
    });
  }

  /** Goes on with what a scheduler before it has begun, and plans from now on. */
  begin(): void {
    for (const task of this.#options.book.all) if (isActive(task.state.kind)) this.#runs.launch(task.id);
    this.#unwatch = this.#options.hotSpots.watch(() => this.#planSoon());
    this.#working = Promise.all([this.#planLoop(), this.#liaison.run(this.#stop.signal)]);
  }

  submit(request: TaskRequest): Promise<TaskSnapshot> {
    return this.#intake.take(request);
  }

  get(id: string): TaskSnapshot {
    return this.#options.book.snapshot(id);
  }

  list(query: TaskQuery): TaskPage {
    return this.#options.book.page(query);
  }

  decisions(id: string): readonly TaskDecision[] {
    return this.#options.book.decisions(id);
  }

  watch(listener: (task: TaskSnapshot) => void): () => void {
    return this.#options.book.watch(listener);
  }

  cancel(id: string): TaskSnapshot {
    const { book } = this.#options;
    const { state, cancelWanted, vmMoved, target } = book.get(id);
    const { kind } = state;
    // What waits has no run that would notice the wish.
    const noticed = cancelWanted && kind !== 'waiting';
    if (kind === 'cancelled' || noticed || (kind === 'rolling-back' && state.outcome === 'cancelled'))
      return book.snapshot(id);
    if (isTaskFinal(kind)) throw new MigrateFsError('FAILED_PRECONDITION', `task ${id} is ${kind} already`);
    if (kind === 'finishing' || vmMoved)
      throw new MigrateFsError(
        'FAILED_PRECONDITION',
        vmMoved
          ? `task ${id} cannot be cancelled any more: its VM runs on ${target}`
          : `task ${id} cannot be cancelled any more: ${target} is taking the images over`,
      );
    if (kind === 'rolling-back')
      throw new MigrateFsError('FAILED_PRECONDITION', `task ${id} is being undone already`);
    if (kind === 'waiting') recorded(() => this.#cancelWaiting(id, state.uncertain === true));
    else {
      recorded(() => book.change(id, { cancelWanted: true }, 'cancellation asked for'));
      this.#runs.cancel(id);
    }
    return book.snapshot(id);
  }

  /** Links that are saturated now, in words. */
  hot(): readonly string[] {
    const saturated = this.#options.hotSpots.loads().filter((load) => load.saturated);
    const words = saturated
      .slice(0, HOT_MAX)
      .map(({ link, source, hot }) => `${link}${hot ? '' : ' (by migrations)'}: ${source}`);
    const more = saturated.length - words.length;
    return more > 0 ? [...words, `and ${more} more`] : words;
  }

  get waiting(): number {
    return this.#options.book.open - this.#runs.size;
  }

  get running(): number {
    return this.#runs.size;
  }

  /** Leaves everything as it is on disk; what runs at daemons and in drivers goes on. */
  async close(): Promise<void> {
    this.#unwatch();
    this.#stop.abort(new MigrateFsError('UNAVAILABLE', 'the scheduler is shutting down'));
    this.#wake();
    await this.#working;
    await this.#runs.ended();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #cancelWaiting(id: string, uncertain: boolean): void {
    const { book } = this.#options;
    if (!uncertain) {
      book.transition(id, { kind: 'cancelled' }, 'cancelled before it began');
      return;
    }
    // The start that got no answer may have made a migration.
    const error = { code: 'CANCELLED', message: 'asked for' } as const;
    book.transition(
      id,
      { kind: 'rolling-back', driven: false, outcome: 'cancelled', error },
      'being cancelled',
    );
    this.#runs.launch(id);
  }

  #planSoon(): void {
    this.#planned = false;
    this.#wake();
  }

  async #planLoop(): Promise<void> {
    const { clock, log } = this.#options;
    const { signal } = this.#stop;
    for (let rest = 0; !signal.aborted; ) {
      if (!this.#planned) {
        // Events of the same turn make one plan.
        await new Promise((resolve) => setImmediate(resolve));
        this.#planned = true;
      }
      const began = clock.now();
      try {
        this.#planOnce();
      } catch (error) {
        log('error', 'the plan failed', { err: error });
      }
      rest = (clock.now() - began) * PLAN_REST;
      await this.#idle(millis(Math.max(PLAN_PERIOD, rest)));
    }
  }

  #idle(period: Millis): Promise<void> {
    return new Promise((resolve) => {
      if (!this.#planned || this.#stop.signal.aborted) return resolve();
      const forget = this.#options.clock.after(period, resolve);
      this.#wake = () => {
        forget();
        resolve();
      };
    });
  }

  #planOnce(): void {
    const { book, clock } = this.#options;
    const now = clock.wall();
    for (const task of [...book.all]) if (task.state.kind === 'waiting') this.#expire(task, now);
    const steps = this.#planner.plan();
    for (const step of steps) if (step.action === 'start') this.#startTask(step.id, step.reason);
    // What waits for its next attempt has said so already.
    const waits = steps.filter((step) => step.action === 'wait');
    this.#reasons.note(waits.filter(({ id }) => retryAfter(book.get(id).state, now) === undefined));
  }

  #startTask(id: string, reason: string): void {
    const { book, clock } = this.#options;
    const { state, attempt, startedAt, source } = book.get(id);
    if (state.kind !== 'waiting') return;
    const next = state.uncertain ? attempt : attempt + 1;
    const why = next > 1 ? `attempt ${next}: ${reason}` : reason;
    book.transition(id, { kind: 'starting' }, state.uncertain ? `asks ${source} again` : why, {
      attempt: next,
      startedAt: startedAt ?? clock.wall(),
    });
    this.#reasons.forget(id);
    this.#runs.launch(id);
  }

  /** A window that is over is not used; a task that was flagged late from the start, or whose VM has moved, goes on. */
  #expire({ id, deadline, late, vmMoved, reason, state }: Task, now: Millis): void {
    if (deadline === undefined || late || vmMoved) return;
    const uncertain = state.kind === 'waiting' && state.uncertain === true;
    // What nobody has answered for may be in sync by then, not later.
    if ((uncertain ? deadline - this.#options.vmmTime : deadline) > now) return;
    const message = uncertain
      ? `its deadline cannot be met any more: ${reason}`
      : `its deadline passed before it could start: ${reason}`;
    const error = { code: 'DEADLINE_EXCEEDED', message } as const;
    if (!uncertain) {
      this.#options.book.transition(id, { kind: 'failed', error }, message);
      return;
    }
    this.#options.book.transition(
      id,
      { kind: 'rolling-back', driven: false, outcome: 'failed', error },
      message,
    );
    this.#runs.launch(id);
  }
}
