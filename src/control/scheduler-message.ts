/** Translation between the vocabulary of the scheduler and the messages of proto/scheduler.proto. */
import { formatDuration } from '../leaves/duration.js';
import type { ErrorCode } from '../leaves/errors.js';
import { MigrateFsError } from '../leaves/errors.js';
import type {
  SchedulerStatus,
  TaskDecision,
  TaskQuery,
  TaskRequest,
  TaskSnapshot,
  TaskStateName,
} from '../leaves/scheduler.js';
import { TASK_STATES } from '../leaves/scheduler.js';
import type { Bytes, Millis } from '../leaves/units.js';
import { bytes, millis } from '../leaves/units.js';
import type {
  ListTasksRequest,
  SchedulerStatusMessage,
  SubmitTaskRequest,
  TaskDecisionMessage,
  TaskMessage,
} from './scheduler-wire.js';
import { checkedImageNames, INSTANT_MAX } from './start-request.js';

const KB = 1000;
const ID_LENGTH_MAX = 128;
const NAME = /^[!-~]{1,128}$/;
const PRIORITY_MAX = 9;
const RATIO_MAX = 1000;
const RATE_KB_MAX = 1e9;
const PAGE_DEFAULT = 200;
const PAGE_MAX = 1000;

const invalid = (message: string): MigrateFsError => new MigrateFsError('INVALID_ARGUMENT', message);

const stateName = (state: TaskStateName): string => `TASK_STATE_${state.toUpperCase().replaceAll('-', '_')}`;

const stateOf = (name: string): TaskStateName => {
  const state = TASK_STATES.find((known) => stateName(known) === name);
  if (!state)
    throw new MigrateFsError(
      'UNIMPLEMENTED',
      `the scheduler reports state ${name}, unknown here: update this client`,
    );
  return state;
};

const checkedName = (what: string, name: string): string => {
  if (!NAME.test(name))
    throw invalid(
      `${what} ${JSON.stringify(name.slice(0, 80))}: give 1 to 128 printable ASCII characters without blanks`,
    );
  return name;
};

/** An instant from what was given of it. `what` may not be in the past where it is relative. */
const instantOf = (
  what: string,
  unix: number | undefined,
  after: number | undefined,
  now: Millis,
): Millis | undefined => {
  if (after === 0) throw invalid(`${what} of 0 ms from now: give at least 1`);
  const instant = after === undefined ? unix : Math.round(now) + after;
  if (instant === undefined) return undefined;
  if (instant > INSTANT_MAX) throw invalid(`${what} in ${formatDuration(instant - now)} is no date`);
  return millis(instant);
};

const checkedRatio = (what: string, ratio: number | undefined): number | undefined => {
  if (ratio !== undefined && !(ratio > 1 && ratio <= RATIO_MAX))
    throw invalid(`the ${what} ratio ${ratio} is out of range: above 1, to ${RATIO_MAX}`);
  return ratio;
};

/** Checks a SubmitTaskRequest by its form; `now` is the wall clock. INVALID_ARGUMENT says what is wrong. */
export const taskRequestOf = (message: SubmitTaskRequest, now: Millis): TaskRequest => {
  const { requestId, vm, source, target, priority, important, writeKbPerS, driver, insist } = message;
  if (requestId.length > ID_LENGTH_MAX)
    throw invalid(`request_id is longer than ${ID_LENGTH_MAX} characters`);
  if (priority > PRIORITY_MAX) throw invalid(`priority ${priority} is out of range: 0 to ${PRIORITY_MAX}`);
  if (writeKbPerS > RATE_KB_MAX)
    throw invalid(`write rate of ${writeKbPerS} KB/s is out of range: up to ${RATE_KB_MAX}`);
  const notBefore = instantOf('not_before', message.notBeforeUnixMs, message.notBeforeAfterMs, now);
  const deadline = instantOf('deadline', message.deadlineUnixMs, message.deadlineAfterMs, now);
  const danger = checkedRatio('danger', message.danger);
  const warning = checkedRatio('warning', message.warning);
  return {
    ...(requestId !== '' && { requestId }),
    vm: checkedName('VM', vm),
    images: checkedImageNames(message.images),
    source: checkedName('source host', source),
    target: checkedName('target host', target),
    ...(notBefore !== undefined && { notBefore }),
    ...(deadline !== undefined && { deadline }),
    priority,
    important,
    ...(danger !== undefined && { danger }),
    ...(warning !== undefined && { warning }),
    writeRate: writeKbPerS * KB,
    ...(driver !== '' && { driver: checkedName('driver', driver) }),
    insist,
  };
};

/** What a client asks for; relative times are counted by the scheduler's clock. */
export interface SubmitOptions extends TaskRequest {
  readonly notBeforeAfter?: Millis;
  readonly deadlineAfter?: Millis;
}

const whole = (value: number | undefined): number | undefined =>
  value === undefined ? undefined : Math.round(value);

export const submitMessage = (options: SubmitOptions): SubmitTaskRequest => ({
  requestId: options.requestId ?? '',
  vm: options.vm,
  images: options.images,
  source: options.source,
  target: options.target,
  ...(options.notBefore !== undefined && { notBeforeUnixMs: Math.round(options.notBefore) }),
  ...(options.notBeforeAfter !== undefined && { notBeforeAfterMs: Math.round(options.notBeforeAfter) }),
  ...(options.deadline !== undefined && { deadlineUnixMs: Math.round(options.deadline) }),
  ...(options.deadlineAfter !== undefined && { deadlineAfterMs: Math.round(options.deadlineAfter) }),
  priority: options.priority,
  important: options.important,
  ...(options.danger !== undefined && { danger: options.danger }),
  ...(options.warning !== undefined && { warning: options.warning }),
  writeKbPerS: Math.ceil(options.writeRate / KB),
  driver: options.driver ?? '',
  insist: options.insist,
});

export const taskMessage = (task: TaskSnapshot): TaskMessage => ({
  id: task.id,
  state: stateName(task.state),
  reason: task.reason,
  requestId: task.requestId ?? '',
  vm: task.vm,
  images: task.images,
  source: task.source,
  target: task.target,
  notBeforeUnixMs: whole(task.notBefore),
  deadlineUnixMs: whole(task.deadline),
  priority: task.priority,
  important: task.important,
  danger: task.danger,
  warning: task.warning,
  writeKbPerS: Math.ceil(task.writeRate / KB),
  driver: task.driver,
  late: task.late,
  admission: task.admission,
  latestStartUnixMs: whole(task.latestStart),
  submittedUnixMs: Math.round(task.submittedAt),
  startedUnixMs: whole(task.startedAt),
  endedUnixMs: whole(task.endedAt),
  attempt: task.attempt,
  migrationId: task.migrationId ?? '',
  totalBytes: task.bytesTotal,
  leftBytes: task.bytesLeft,
  networkKbPerS: task.netRate === undefined ? undefined : task.netRate / KB,
  etaMs: whole(task.eta),
  laxity: task.laxity,
  error: task.error && { ...task.error },
  ramSentBytes: task.ramSent,
  ramLeftBytes: task.ramLeft,
  vmDowntimeMs: task.vmDowntime,
});

const instant = (value: number | undefined): Millis | undefined =>
  value === undefined ? undefined : millis(value);

const size = (value: number | undefined): Bytes | undefined =>
  value === undefined ? undefined : bytes(value);

/** An object without the keys that are undefined. */
const defined = <T extends object>(value: { [K in keyof T]: T[K] | undefined }): T =>
  Object.fromEntries(Object.entries(value).filter(([, inner]) => inner !== undefined)) as T;

/** UNIMPLEMENTED: a state that this client does not know. */
export const taskOf = (message: TaskMessage): TaskSnapshot => ({
  id: message.id,
  state: stateOf(message.state),
  reason: message.reason,
  vm: message.vm,
  images: message.images,
  source: message.source,
  target: message.target,
  priority: message.priority,
  important: message.important,
  danger: message.danger,
  warning: message.warning,
  writeRate: message.writeKbPerS * KB,
  driver: message.driver,
  late: message.late,
  admission: message.admission,
  submittedAt: millis(message.submittedUnixMs),
  attempt: message.attempt,
  bytesTotal: bytes(message.totalBytes),
  ...defined<Pick<TaskSnapshot, OptionalKey>>({
    requestId: message.requestId === '' ? undefined : message.requestId,
    migrationId: message.migrationId === '' ? undefined : message.migrationId,
    notBefore: instant(message.notBeforeUnixMs),
    deadline: instant(message.deadlineUnixMs),
    latestStart: instant(message.latestStartUnixMs),
    startedAt: instant(message.startedUnixMs),
    endedAt: instant(message.endedUnixMs),
    eta: instant(message.etaMs),
    bytesLeft: size(message.leftBytes),
    netRate: message.networkKbPerS === undefined ? undefined : message.networkKbPerS * KB,
    laxity: message.laxity,
    ramSent: size(message.ramSentBytes),
    ramLeft: size(message.ramLeftBytes),
    vmDowntime: instant(message.vmDowntimeMs),
    error: message.error
      ? { code: message.error.code as ErrorCode, message: message.error.message }
      : undefined,
  }),
});

type OptionalKey =
  | 'requestId'
  | 'migrationId'
  | 'notBefore'
  | 'deadline'
  | 'latestStart'
  | 'startedAt'
  | 'endedAt'
  | 'eta'
  | 'bytesLeft'
  | 'netRate'
  | 'laxity'
  | 'ramSent'
  | 'ramLeft'
  | 'vmDowntime'
  | 'error';

export const taskQueryOf = ({ states, pageSize, pageToken }: ListTasksRequest): TaskQuery => {
  if (pageSize > PAGE_MAX) throw invalid(`page_size ${pageSize} is out of range: at most ${PAGE_MAX}`);
  if (!/^(?:t\d{1,15})?$/.test(pageToken)) throw invalid('page_token is not one of an answer');
  const known = states.map((name) => TASK_STATES.find((state) => stateName(state) === name));
  if (known.includes(undefined)) throw invalid('states has one that is unknown');
  return {
    states: known as TaskStateName[],
    limit: pageSize || PAGE_DEFAULT,
    ...(pageToken !== '' && { after: pageToken }),
  };
};

export const listTasksMessage = ({ states, limit, after }: TaskQuery): ListTasksRequest => ({
  states: states.map(stateName),
  pageSize: limit,
  pageToken: after ?? '',
});

export const decisionMessage = ({ at, text, state, times, lastAt }: TaskDecision): TaskDecisionMessage => ({
  atUnixMs: Math.round(at),
  text,
  state: state === undefined ? 'TASK_STATE_UNSPECIFIED' : stateName(state),
  times,
  lastUnixMs: whole(lastAt),
});

export const decisionOf = ({
  atUnixMs,
  text,
  state,
  times,
  lastUnixMs,
}: TaskDecisionMessage): TaskDecision => ({
  at: millis(atUnixMs),
  text,
  ...(times !== undefined && { times }),
  ...(lastUnixMs !== undefined && { lastAt: millis(lastUnixMs) }),
  ...(state !== 'TASK_STATE_UNSPECIFIED' && { state: stateOf(state) }),
});

export const schedulerStatusMessage = ({
  startedAt,
  ...status
}: SchedulerStatus): SchedulerStatusMessage => ({
  ...status,
  startedUnixMs: Math.round(startedAt),
});

export const schedulerStatusOf = ({ startedUnixMs, ...status }: SchedulerStatusMessage): SchedulerStatus => ({
  ...status,
  startedAt: millis(startedUnixMs),
});
