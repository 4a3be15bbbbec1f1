import type { UntypedServiceImplementation } from '@grpc/grpc-js';
import { systemClock } from '../leaves/clock.js';
import { MigrateFsError } from '../leaves/errors.js';
import type { SchedulerControl, SchedulerStatus, TaskSnapshot } from '../leaves/scheduler.js';
import { isTaskFinal, TASK_STATES } from '../leaves/scheduler.js';
import type { Millis } from '../leaves/units.js';
import type { ControlServer, ListenerOptions } from './grpc-server.js';
import { serveGrpc, unaryHandler } from './grpc-server.js';
import { fitting } from './page.js';
import {
  decisionMessage,
  schedulerStatusMessage,
  taskMessage,
  taskQueryOf,
  taskRequestOf,
} from './scheduler-message.js';
import type { SchedulerMethod, SchedulerMethods, TaskIdMessage } from './scheduler-wire.js';
import { SCHEDULER_NAME, SCHEDULER_PROTO_PATH, schedulerDefinition } from './scheduler-wire.js';
import { WatchStreams } from './watch-stream.js';

const ID_LENGTH_MAX = 128;
/** States that a task can still leave. */
const OPEN_STATES = TASK_STATES.filter((state) => !isTaskFinal(state));
/** Tasks that a stream over all tasks begins with: those that have not ended. */
const WATCHED_AT_FIRST_MAX = 10_000;

interface SchedulerServerOptions extends ListenerOptions {
  readonly scheduler: SchedulerControl;
  readonly status: () => SchedulerStatus;
}

type Handlers = {
  readonly [M in SchedulerMethod]: (
    request: SchedulerMethods[M][0],
  ) => Promise<SchedulerMethods[M][1]> | SchedulerMethods[M][1];
};

const checkedId = (id: string): string => {
  if (id === '' || id.length > ID_LENGTH_MAX)
    throw new MigrateFsError('INVALID_ARGUMENT', 'the id of the task is empty or too long');
  return id;
};

const handlersOf = ({ scheduler, status }: SchedulerServerOptions, now: () => Millis): Handlers => ({
  SubmitTask: async (request) => taskMessage(await scheduler.submit(taskRequestOf(request, now()))),
  GetTask: ({ id }) => taskMessage(scheduler.get(checkedId(id))),
  ListTasks: (request) => {
    const { tasks, next = '' } = scheduler.list(taskQueryOf(request));
    const messages = fitting(tasks.map(taskMessage));
    return { tasks: messages, nextPageToken: messages.length < tasks.length ? messages.at(-1)!.id : next };
  },
  CancelTask: ({ id }) => taskMessage(scheduler.cancel(checkedId(id))),
  ListDecisions: ({ task }) => ({ decisions: scheduler.decisions(checkedId(task)).map(decisionMessage) }),
  GetSchedulerStatus: () => schedulerStatusMessage(status()),
});

/**
 * Serves proto/scheduler.proto with health and reflection.
 * FAILED_PRECONDITION: the address is taken, not ours, or unsafe without certificates. INVALID_ARGUMENT: bad PEMs.
 */
export const serveScheduler = (options: SchedulerServerOptions): Promise<ControlServer> => {
  const { scheduler, log } = options;
  const clock = options.clock ?? systemClock;
  const watchers = new WatchStreams<TaskIdMessage, TaskSnapshot>({
    method: 'WatchTasks',
    instead: 'GetTask',
    source: {
      get: (id) => scheduler.get(id),
      list: () => scheduler.list({ states: OPEN_STATES, limit: WATCHED_AT_FIRST_MAX }).tasks,
      watch: (listener) => scheduler.watch(listener),
    },
    idOf: ({ id }) => id,
    messageOf: taskMessage,
    isFinal: ({ state }) => isTaskFinal(state),
    log,
  });
  const implementation: UntypedServiceImplementation = { WatchTasks: watchers.serve.bind(watchers) };
  const handlers = handlersOf(options, () => clock.wall());
  for (const method of Object.keys(handlers) as SchedulerMethod[])
    implementation[method] = unaryHandler(
      method,
      handlers[method] as (request: object) => object,
      log,
    ) as never;
  return serveGrpc({
    ...options,
    services: [{ name: SCHEDULER_NAME, definition: schedulerDefinition, implementation }],
    protoPaths: [SCHEDULER_PROTO_PATH],
    endStreams: () => watchers.close(),
  });
};
