import assert from 'node:assert';
import type { Clock } from '../../leaves/clock.js';
import { MigrateFsError } from '../../leaves/errors.js';
import type { LogSink } from '../../leaves/log-sink.js';
import type { TaskDecision, TaskPage, TaskQuery, TaskSnapshot } from '../../leaves/scheduler.js';
import { isTaskFinal, TASK_EDGES } from '../../leaves/scheduler.js';
import type { Millis } from '../../leaves/units.js';
import type { MoveProgress } from './hypervisor-driver.js';
import type { Task, TaskOrder, TaskProgress, TaskState } from './task.js';
import { snapshotOfTask } from './task.js';
import type { TaskStore } from './task-store.js';

const HISTORY_MAX = 2000;
/** Of the oldest of them, at a time. */
const HISTORY_DROPPED_SHARE = 0.05;

/** What changes beside the state. */
interface TaskChange {
  readonly attempt?: number;
  readonly migrationId?: string;
  readonly vmMoved?: boolean;
  readonly cancelWanted?: boolean;
  readonly startedAt?: Millis;
  readonly unanswered?: Task['unanswered'];
  readonly vmDowntime?: Millis;
}

interface TaskBookOptions {
  readonly store: TaskStore;
  readonly clock: Clock;
  readonly log: LogSink;
  /** What a hypervisor needs once the disks are in sync, for the laxity that is shown. */
  readonly vmmTime: Millis;
  /** Ended tasks that are remembered. */
  readonly historyMax?: number;
}

/** Every task that is known. The one door for changes: checked, on disk before it counts, logged, told to watchers. */
export class TaskBook {
  readonly #store: TaskStore;
  readonly #clock: Clock;
  readonly #log: LogSink;
  readonly #vmmTime: Millis;
  readonly #historyMax: number;
  /** In the order of submission. */
  readonly #tasks = new Map<string, Task>();
  readonly #byRequest = new Map<string, string>();
  readonly #byImage = new Map<string, string>();
  readonly #progress = new Map<string, TaskProgress>();
  readonly #moves = new Map<string, MoveProgress>();
  readonly #watchers = new Set<(task: TaskSnapshot) => void>();
  readonly #forgotten = new Set<(id: string) => void>();
  #ended = 0;
  #nextNumber: number;

  constructor({ store, clock, log, vmmTime, historyMax = HISTORY_MAX }: TaskBookOptions) {
    this.#historyMax = historyMax;
    this.#store = store;
    this.#clock = clock;
    this.#log = log;
    this.#vmmTime = vmmTime;
    this.#nextNumber = store.nextNumber();
    for (const task of store.tasks()) this.#take(task);
  }

  /** Of all, in the order of submission. */
  get all(): Iterable<Task> {
    return this.#tasks.values();
  }

  /** Tasks that have not ended. */
  get open(): number {
    return this.#tasks.size - this.#ended;
  }

  get ended(): number {
    return this.#ended;
  }

  find(id: string): Task | undefined {
    return this.#tasks.get(id);
  }

  /** NOT_FOUND. */
  get(id: string): Task {
    const task = this.#tasks.get(id);
    if (!task) throw new MigrateFsError('NOT_FOUND', `no task ${id}: see \`migratefs tasks\``);
    return task;
  }

  findRequest(requestId: string): Task | undefined {
    const id = this.#byRequest.get(requestId);
    return id === undefined ? undefined : this.#tasks.get(id);
  }

  /** The task under way that moves this image of that host. */
  findImage(host: string, image: string): string | undefined {
    return this.#byImage.get(imageKey(host, image));
  }

  progressOf(id: string): TaskProgress | undefined {
    return this.#progress.get(id);
  }

  snapshot(id: string): TaskSnapshot {
    return snapshotOfTask(
      this.get(id),
      this.#progress.get(id),
      this.#moves.get(id),
      this.#vmmTime,
      this.#clock.wall(),
    );
  }

  page({ states, limit, after }: TaskQuery): TaskPage {
    const from = after === undefined ? 0 : Number(after.slice(1));
    const tasks: TaskSnapshot[] = [];
    for (const task of this.#tasks.values()) {
      if (task.number <= from || (states.length > 0 && !states.includes(task.state.kind))) continue;
      if (tasks.length === limit) return { tasks, next: tasks.at(-1)!.id };
      tasks.push(this.snapshot(task.id));
    }
    return { tasks };
  }

  decisions(id: string): readonly TaskDecision[] {
    return this.#store.decisions(this.get(id).number);
  }

  watch(listener: (task: TaskSnapshot) => void): () => void {
    this.#watchers.add(listener);
    return () => void this.#watchers.delete(listener);
  }

  /** Calls `listener` with each task that is dropped from the history. */
  onForgotten(listener: (id: string) => void): void {
    this.#forgotten.add(listener);
  }

  add(order: TaskOrder, text: string): Task {
    const number = this.#nextNumber++;
    const now = this.#clock.wall();
    const task: Task = {
      ...order,
      id: `t${number}`,
      number,
      state: { kind: 'waiting' },
      reason: text,
      attempt: 0,
      vmMoved: false,
      cancelWanted: false,
      submittedAt: now,
    };
    this.#store.save(task, { at: now, text, state: 'waiting' });
    this.#take(task);
    this.#tell(task, text);
    return task;
  }

  /** The task enters `state` because of `text`. */
  transition(id: string, state: TaskState, text: string, change: TaskChange = {}): Task {
    const before = this.get(id);
    assert(
      TASK_EDGES[before.state.kind].includes(state.kind),
      `task ${id} cannot go from ${before.state.kind} to ${state.kind}`,
    );
    const now = this.#clock.wall();
    const final = isTaskFinal(state.kind);
    const task: Task = { ...before, ...change, state, reason: text, ...(final && { endedAt: now }) };
    this.#store.save(task, { at: now, text, state: state.kind });
    this.#tasks.set(id, task);
    if (final) this.#end(task);
    if (final || state.kind === 'waiting') this.#progress.delete(id);
    if (state.kind !== 'handing-over') this.#moves.delete(id);
    this.#tell(task, text);
    if (final) this.#dropHistory();
    return task;
  }

  /** Something about the task changes, not its state. */
  change(id: string, change: TaskChange, text: string): Task {
    const task: Task = { ...this.get(id), ...change, reason: text };
    this.#store.save(task, { at: this.#clock.wall(), text });
    this.#tasks.set(id, task);
    this.#tell(task, text);
    return task;
  }

  /** A decision that leaves the task where it is; it is the reason from now on unless it is somebody else's. */
  note(id: string, text: string, whose: 'scheduler' | 'broker' = 'scheduler'): void {
    const decision: TaskDecision = { at: this.#clock.wall(), text };
    const before = this.get(id);
    const task: Task = whose === 'scheduler' ? { ...before, reason: text } : before;
    if (task === before) this.#store.note(task.number, decision);
    else this.#store.save(task, decision);
    this.#tasks.set(id, task);
    this.#tell(task, text);
  }

  /** Tasks wait, each for a reason of its own. */
  noteReasons(reasons: readonly { readonly id: string; readonly reason: string }[]): void {
    if (reasons.length === 0) return;
    const at = this.#clock.wall();
    const tasks = reasons.map(({ id, reason }): Task => ({ ...this.get(id), reason }));
    this.#store.saveAll(tasks.map((task) => ({ task, decision: { at, text: task.reason } })));
    for (const task of tasks) {
      this.#tasks.set(task.id, task);
      this.#tell(task, task.reason);
    }
  }

  /** Reported, not kept. */
  setProgress(id: string, progress: TaskProgress): void {
    if (!this.#tasks.has(id)) return;
    this.#progress.set(id, progress);
    this.#tellWatchers(id);
  }

  /** Reported, not kept. */
  setMove(id: string, progress: MoveProgress): void {
    if (this.get(id).state.kind !== 'handing-over') return;
    this.#moves.set(id, progress);
    this.#tellWatchers(id);
  }

  #tell(task: Task, text: string): void {
    this.#log('info', 'decision', { task: task.id, vm: task.vm, state: task.state.kind, text });
    this.#tellWatchers(task.id);
  }

  #tellWatchers(id: string): void {
    if (this.#watchers.size === 0) return;
    const snapshot = this.snapshot(id);
    for (const listener of this.#watchers) listener(snapshot);
  }

  #take(task: Task): void {
    this.#tasks.set(task.id, task);
    if (task.requestId !== undefined) this.#byRequest.set(task.requestId, task.id);
    if (isTaskFinal(task.state.kind)) this.#ended++;
    else for (const image of task.images) this.#byImage.set(imageKey(task.source, image), task.id);
  }

  #end(task: Task): void {
    this.#ended++;
    for (const image of task.images) {
      const key = imageKey(task.source, image);
      if (this.#byImage.get(key) === task.id) this.#byImage.delete(key);
    }
  }

  #dropHistory(): void {
    if (this.#ended <= this.#historyMax) return;
    const dropped = [...this.#tasks.values()]
      .filter(({ state }) => isTaskFinal(state.kind))
      .slice(0, Math.ceil(this.#historyMax * HISTORY_DROPPED_SHARE));
    this.#store.remove(dropped.map(({ number }) => number));
    for (const { id, requestId } of dropped) {
      this.#tasks.delete(id);
      if (requestId !== undefined && this.#byRequest.get(requestId) === id) this.#byRequest.delete(requestId);
      this.#ended--;
      for (const listener of this.#forgotten) listener(id);
    }
  }
}

const imageKey = (host: string, image: string): string => `${host}\0${image}`;
