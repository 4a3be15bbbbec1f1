/** The messages of proto/scheduler.proto as the service definition gives them: 64-bit integers as numbers, enums by name. */
import { fileURLToPath } from 'node:url';
import type { MethodDefinition } from '@grpc/grpc-js';
import { methodsOf } from './service-definition.js';

export const SCHEDULER_NAME = 'migratefs.v1.Scheduler';
export const SCHEDULER_PROTO_PATH = fileURLToPath(new URL('../../../proto/scheduler.proto', import.meta.url));

export const schedulerDefinition = methodsOf(SCHEDULER_NAME);

export const schedulerMethod = (name: string): MethodDefinition<object, object> => schedulerDefinition[name]!;

export interface SubmitTaskRequest {
  readonly requestId: string;
  readonly vm: string;
  readonly images: readonly string[];
  readonly source: string;
  readonly target: string;
  readonly notBeforeUnixMs?: number | undefined;
  readonly notBeforeAfterMs?: number | undefined;
  readonly deadlineUnixMs?: number | undefined;
  readonly deadlineAfterMs?: number | undefined;
  readonly priority: number;
  readonly important: boolean;
  readonly danger?: number | undefined;
  readonly warning?: number | undefined;
  readonly writeKbPerS: number;
  readonly driver: string;
  readonly insist: boolean;
}

export interface TaskIdMessage {
  readonly id: string;
}

export interface TaskMessage {
  readonly id: string;
  readonly state: string;
  readonly reason: string;
  readonly requestId: string;
  readonly vm: string;
  readonly images: readonly string[];
  readonly source: string;
  readonly target: string;
  readonly notBeforeUnixMs?: number | undefined;
  readonly deadlineUnixMs?: number | undefined;
  readonly priority: number;
  readonly important: boolean;
  readonly danger: number;
  readonly warning: number;
  readonly writeKbPerS: number;
  readonly driver: string;
  readonly late: boolean;
  readonly admission: string;
  readonly latestStartUnixMs?: number | undefined;
  readonly submittedUnixMs: number;
  readonly startedUnixMs?: number | undefined;
  readonly endedUnixMs?: number | undefined;
  readonly attempt: number;
  readonly migrationId: string;
  readonly totalBytes: number;
  readonly leftBytes?: number | undefined;
  readonly networkKbPerS?: number | undefined;
  readonly etaMs?: number | undefined;
  readonly laxity?: number | undefined;
  readonly error?: { readonly code: string; readonly message: string } | null | undefined;
  readonly ramSentBytes?: number | undefined;
  readonly ramLeftBytes?: number | undefined;
  readonly vmDowntimeMs?: number | undefined;
}

export interface ListTasksRequest {
  readonly states: readonly string[];
  readonly pageSize: number;
  readonly pageToken: string;
}

export interface ListTasksResponse {
  readonly tasks: readonly TaskMessage[];
  readonly nextPageToken: string;
}

export interface ListDecisionsRequest {
  readonly task: string;
}

export interface TaskDecisionMessage {
  readonly atUnixMs: number;
  readonly text: string;
  readonly state: string;
  readonly times?: number | undefined;
  readonly lastUnixMs?: number | undefined;
}

export interface ListDecisionsResponse {
  readonly decisions: readonly TaskDecisionMessage[];
}

export interface SchedulerStatusMessage {
  readonly version: string;
  readonly pid: number;
  readonly address: string;
  readonly store: string;
  readonly startedUnixMs: number;
  readonly waiting: number;
  readonly running: number;
  readonly ended: number;
  readonly hot: readonly string[];
}

/** Request and response of every unary method. */
export interface SchedulerMethods {
  readonly SubmitTask: readonly [SubmitTaskRequest, TaskMessage];
  readonly GetTask: readonly [TaskIdMessage, TaskMessage];
  readonly ListTasks: readonly [ListTasksRequest, ListTasksResponse];
  readonly CancelTask: readonly [TaskIdMessage, TaskMessage];
  readonly ListDecisions: readonly [ListDecisionsRequest, ListDecisionsResponse];
  readonly GetSchedulerStatus: readonly [object, SchedulerStatusMessage];
}

export type SchedulerMethod = keyof SchedulerMethods;
