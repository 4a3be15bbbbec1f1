import { setMaxListeners } from 'node:events';
import { pause } from '../../leaves/clock.js';
import { formatDuration } from '../../leaves/duration.js';
import { MigrateFsError } from '../../leaves/errors.js';
import type { HotSpots } from '../../leaves/hot-spots.js';
import type { ImageDescription } from '../../leaves/migration.js';
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
import { bytes, millis } from '../../leaves/units.js';
import type { Admission, Paths, PlanInput, PlanLimits, PlanStep, PlanTask } from '../policy/task.js';
import { completeTerms } from '../terms.js';
import { BrokerLiaison } from './broker-liaison.js';
import type { RunEnvironment } from './run-context.js';
import { ATTEMPT_DELAY_MAX } from './run-context.js';
import { checkImages, checkRequest, repeated, type SubmissionRules } from './submission.js';
import type { Task, TaskOrder } from './task.js';
import { isActive } from './task.js';
import { TaskRun } from './task-run.js';
import { QueueError } from './task-store.js';

/** Between two plans when nothing happens. */
const PLAN_PERIOD = millis(1_000);
/** A plan that took long is made again after so many times as long. */
const PLAN_REST = 10;
/** How long the source daemon may take to describe images at submission. */
const DESCRIBE_MAX = millis(10_000);
/** A reason of which only the numbers change is recorded again after this. */
const REASON_PERIOD = millis(60_000);
/** Links that are named where many are saturated. */
const HOT_MAX = 100;
/** After a step that the queue did not take. */
const RECORD_AGAIN = millis(5_000);

export interface SchedulerOptions extends Omit<RunEnvironment, 'onMigration'> {
  readonly paths: Paths;
  readonly checkHost: (name: string) => void;
  readonly hotSpots: HotSpots;
  readonly plan: (input: PlanInput) => readonly PlanStep[];
  readonly admit: (candidate: PlanTask, input: PlanInput) => Admission;
  readonly limits: PlanLimits;
  /** Tasks in the queue. */
  readonly tasksMax: number;
  /** Where a request names none. */
  readonly defaultDriver: string;
}

/** When the next attempt of a task may begin, where that is still to come. What is further away: the clock was set back. */
const retryAfter = ({ state }: Task, now: Millis): Millis | undefined => {
  if (state.kind !== 'waiting' || state.retryAt === undefined) return undefined;
  const wait = state.retryAt - now;
  return wait > 0 && wait <= ATTEMPT_DELAY_MAX ? state.retryAt : undefined;
};

/** Does what somebody waits for; RESOURCE_EXHAUSTED: it cannot be put on disk. */
const recorded = <T>(work: () => T): T => {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof QueueError)) throw error;
    throw new MigrateFsError(error.code, `${error.message}: make room for it, then ask again`, {
      cause: error,
    });
  }
};

/** Plans, starts, follows and closes tasks. */
export class Scheduler implements SchedulerControl, AsyncDisposable {
  readonly #options: SchedulerOptions;
  readonly #rules: SubmissionRules;
  readonly #env: RunEnvironment;
  readonly #liaison: BrokerLiaison;
  readonly #stop = new AbortController();
  readonly #runs = new Map<string, { readonly run: TaskRun; readonly ended: Promise<void> }>();
  readonly #reasons = new Map<string, { readonly key: string; readonly at: Millis }>();
  /** When waiting tasks start by the newest schedule that keeps every promise; after a restart it is made anew. */
  #turns: ReadonlyMap<string, Millis> = new Map();
  /** Since when tasks are known to be in sync. */
  #synced: ReadonlyMap<string, Millis> = new Map();
  #working: Promise<unknown> = Promise.resolve();
  #unwatch: () => void = () => {};
  #wake: () => void = () => {};
  #planned = true;

  constructor(options: SchedulerOptions) {
    this.#options = options;
    const { book, drivers, tasksMax, checkHost } = options;
    this.#rules = { book, drivers, tasksMax, checkHost };
    this.#liaison = new BrokerLiaison(options);
    this.#env = { ...options, onMigration: () => this.#liaison.changed() };
    // Every call under way listens.
    setMaxListeners(0, this.#stop.signal);
    book.onForgotten((id) => {
      for (const driver of drivers.values()) driver.forget(id);
      this.#reasons.delete(id);
    });
  }

  /** Goes on with what a scheduler before it has begun, and plans from now on. */
  begin(): void {
    for (const task of this.#options.book.all) if (isActive(task.state.kind)) this.#launch(task.id);
    this.#unwatch = this.#options.hotSpots.watch(() => this.#planSoon());
    this.#working = Promise.all([this.#planLoop(), this.#liaison.run(this.#stop.signal)]);
  }

  async submit(request: TaskRequest): Promise<TaskSnapshot> {
    const { book, clock, defaultDriver } = this.#options;
    const before = repeated(request, book);
    if (before) return book.snapshot(before.id);
    const driver = request.driver ?? defaultDriver;
    const { source, images } = request;
    checkRequest(request, driver, this.#rules, clock.wall());
    const described = await this.#describe(source, images);
    const meanwhile = repeated(request, book);
    if (meanwhile) return book.snapshot(meanwhile.id);
    checkRequest(request, driver, this.#rules, clock.wall());
    const bytesTotal = checkImages(source, described);
    const order = this.#orderOf(request, driver, bytesTotal);
    const admission = this.#options.admit(this.#candidateOf(order), this.#planInput());
    if (!admission.feasible && !request.insist)
      throw new MigrateFsError(
        'FAILED_PRECONDITION',
        `the deadline cannot be met: ${admission.arithmetic}. Give a later one, or insist`,
      );
    const { feasible, arithmetic, latestStart } = admission;
    const admitted = {
      ...order,
      late: !feasible,
      admission: arithmetic,
      ...(latestStart !== undefined && { latestStart }),
    };
    const how = feasible ? 'admitted' : 'admitted at its submitter’s insistence';
    const task = recorded(() => book.add(admitted, `${how}: ${arithmetic}`));
    if (admission.turns)
      this.#turns = new Map([...admission.turns].map(([id, turn]) => [id === '' ? task.id : id, turn]));
    this.#planSoon();
    return book.snapshot(task.id);
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
    if (kind === 'cancelled' || cancelWanted || (kind === 'rolling-back' && state.outcome === 'cancelled'))
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
      this.#runs.get(id)?.run.cancel();
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
    await Promise.all([...this.#runs.values()].map(({ ended }) => ended));
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
    this.#launch(id);
  }

  async #describe(source: string, images: readonly string[]): Promise<readonly ImageDescription[]> {
    const { hosts, clock } = this.#options;
    const late = new AbortController();
    const words = `${source} did not answer in ${formatDuration(DESCRIBE_MAX)}`;
    const forget = clock.after(DESCRIBE_MAX, () =>
      late.abort(new MigrateFsError('DEADLINE_EXCEEDED', words)),
    );
    try {
      return await hosts.describe(source, images, AbortSignal.any([this.#stop.signal, late.signal]));
    } finally {
      forget();
    }
  }

  #launch(id: string): void {
    const run = new TaskRun(this.#env, id);
    const ended = this.#persist(run, id)
      .catch((error: unknown) =>
        this.#options.log('error', 'internal error in a task', { task: id, err: error }),
      )
      .then(() => {
        this.#runs.delete(id);
        this.#planSoon();
      });
    this.#runs.set(id, { run, ended });
  }

  /** Runs a task to its end, however often the queue cannot be written meanwhile. */
  async #persist(run: TaskRun, id: string): Promise<void> {
    const { clock, log } = this.#options;
    const { signal } = this.#stop;
    while (!signal.aborted)
      try {
        return await run.run(signal);
      } catch (error) {
        if (!(error instanceof QueueError)) throw error;
        log('error', 'a step cannot be recorded: make room for the queue', { task: id, err: error });
        await pause(clock, RECORD_AGAIN, signal).catch(() => undefined);
      }
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
    const input = this.#planInput();
    if (!input.tasks.some(({ state }) => state === 'waiting')) return;
    const steps = this.#options.plan(input);
    this.#turns = new Map(
      steps.flatMap((step) =>
        step.action === 'wait' && step.turn !== undefined ? [[step.id, step.turn]] : [],
      ),
    );
    for (const step of steps) {
      if (step.action === 'start') this.#startTask(step.id, step.reason);
      // What waits for its next attempt has said so already.
      else if (retryAfter(book.get(step.id), now) === undefined)
        this.#noteReason(step.id, `${step.cause}:${step.reason.replace(/[\d.:]+/g, '')}`, step.reason);
    }
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
    this.#reasons.delete(id);
    this.#launch(id);
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
    this.#launch(id);
  }

  /** Records why a task waits when that changes; when only its numbers do, now and then. */
  #noteReason(id: string, key: string, reason: string): void {
    const last = this.#reasons.get(id);
    const at = this.#options.clock.now();
    if (last?.key === key && at - last.at < REASON_PERIOD) return;
    this.#reasons.set(id, { key, at });
    if (this.#options.book.get(id).reason !== reason) this.#options.book.note(id, reason);
  }

  #planInput(): PlanInput {
    const { book, clock, paths, hotSpots, limits } = this.#options;
    const now = clock.wall();
    const tasks: PlanTask[] = [];
    for (const task of book.all) {
      if (isTaskFinal(task.state.kind)) continue;
      const planned = this.#planTaskOf(task, now);
      const retryAt = retryAfter(task, now);
      // It keeps its promise and its place in the order: others are admitted and started with it in mind.
      tasks.push(
        retryAt === undefined
          ? planned
          : { ...planned, notBefore: millis(Math.max(retryAt, planned.notBefore ?? 0)) },
      );
    }
    this.#synced = new Map(
      tasks.flatMap(({ id, syncedAt }) => (syncedAt === undefined ? [] : [[id, syncedAt]])),
    );
    return { now, tasks, paths, loads: hotSpots.loads(), limits };
  }

  #planTaskOf(task: Task, now: Millis): PlanTask {
    const { kind } = task.state;
    const progress = this.#options.book.progressOf(task.id);
    const turn = this.#turns.get(task.id);
    const copied = kind === 'handing-over' || kind === 'finishing' || kind === 'rolling-back';
    return {
      ...this.#candidateOf(task),
      id: task.id,
      submittedAt: task.submittedAt,
      ...(copied
        ? { left: bytes(0), syncedAt: this.#synced.get(task.id) ?? now }
        : progress && { left: progress.bytesLeft }),
      ...(progress && { dirtyRate: progress.dirtyRate, netRate: progress.netRate }),
      ...(turn !== undefined && { turn }),
      state: kind === 'waiting' ? 'waiting' : 'running',
    };
  }

  #candidateOf(order: TaskOrder): PlanTask {
    const { danger, warning, important, notBefore, deadline, late } = order;
    const { vmmTime, clock } = this.#options;
    return {
      id: '',
      source: order.source,
      target: order.target,
      left: order.bytesTotal,
      allocated: order.bytesTotal,
      dirtyRate: order.writeRate,
      writeRate: order.writeRate,
      terms: completeTerms({ danger, warning, important, vmmTime }),
      submittedAt: clock.wall(),
      ...(notBefore !== undefined && { notBefore }),
      // One that cannot be met is no promise that others have to make room for.
      ...(deadline !== undefined && (late ? { late } : { deadline })),
      priority: order.priority,
      state: 'waiting',
    };
  }

  #orderOf(request: TaskRequest, driver: string, bytesTotal: TaskOrder['bytesTotal']): TaskOrder {
    const { insist: _insist, danger, warning, ...rest } = request;
    const terms = completeTerms({
      ...(danger !== undefined && { danger }),
      ...(warning !== undefined && { warning }),
    });
    return {
      ...rest,
      driver,
      danger: terms.danger,
      warning: Math.max(terms.warning, terms.danger),
      bytesTotal,
      late: false,
      admission: '',
    };
  }
}
