import type {
  SchedulerStatus,
  TaskDecision,
  TaskPage,
  TaskQuery,
  TaskSnapshot,
} from '../leaves/scheduler.js';
import type { Millis } from '../leaves/units.js';
import { millis } from '../leaves/units.js';
import type { ChannelOptions } from './grpc-channel.js';
import { GrpcChannel } from './grpc-channel.js';
import type { SubmitOptions } from './scheduler-message.js';
import {
  decisionOf,
  listTasksMessage,
  schedulerStatusOf,
  submitMessage,
  taskOf,
} from './scheduler-message.js';
import type { SchedulerMethod, SchedulerMethods, TaskMessage } from './scheduler-wire.js';
import { schedulerMethod } from './scheduler-wire.js';
import type { ServerKind } from './status-error.js';

const CALL_TIMEOUT = millis(15_000);
/** The scheduler asks the source daemon first. */
const SUBMIT_TIMEOUT = millis(30_000);

const SCHEDULER: ServerKind = { what: 'scheduler', command: 'migratefs scheduler' };

/** A client of the scheduler in the program's own vocabulary; every failure is a `MigrateFsError`. */
export class SchedulerClient implements Disposable {
  readonly #channel: GrpcChannel;

  constructor(options: ChannelOptions) {
    this.#channel = new GrpcChannel(options, SCHEDULER);
  }

  /** `host:port`. */
  get server(): string {
    return this.#channel.server;
  }

  async submit(options: SubmitOptions): Promise<TaskSnapshot> {
    return taskOf(await this.#unary('SubmitTask', submitMessage(options), SUBMIT_TIMEOUT));
  }

  async get(id: string): Promise<TaskSnapshot> {
    return taskOf(await this.#unary('GetTask', { id }));
  }

  async list(query: TaskQuery): Promise<TaskPage> {
    const { tasks, nextPageToken } = await this.#unary('ListTasks', listTasksMessage(query));
    return { tasks: tasks.map(taskOf), ...(nextPageToken !== '' && { next: nextPageToken }) };
  }

  async cancel(id: string): Promise<TaskSnapshot> {
    return taskOf(await this.#unary('CancelTask', { id }));
  }

  async decisions(task: string): Promise<readonly TaskDecision[]> {
    return (await this.#unary('ListDecisions', { task })).decisions.map(decisionOf);
  }

  async status(): Promise<SchedulerStatus> {
    return schedulerStatusOf(await this.#unary('GetSchedulerStatus', {}));
  }

  /** The current state, then every change; ends after a final state when an id is given. `''` watches all tasks. */
  async *watch(id: string, signal?: AbortSignal): AsyncGenerator<TaskSnapshot, void, void> {
    for await (const message of this.#channel.stream(schedulerMethod('WatchTasks'), { id }, signal))
      yield taskOf(message as TaskMessage);
  }

  [Symbol.dispose](): void {
    this.#channel[Symbol.dispose]();
  }

  async #unary<M extends SchedulerMethod>(
    method: M,
    request: SchedulerMethods[M][0],
    timeout: Millis = CALL_TIMEOUT,
  ): Promise<SchedulerMethods[M][1]> {
    return (await this.#channel.call(schedulerMethod(method), request, timeout)) as SchedulerMethods[M][1];
  }
}
