/** The messages of proto/broker.proto as the loader gives them: 64-bit integers as numbers, enums by name. */

import type { PageRequest } from './page.js';

export interface BrokerTermsMessage {
  readonly off?: boolean;
  readonly danger?: number;
  readonly warning?: number;
  readonly important?: boolean;
  readonly periodMs?: number;
  readonly quietPeriods?: number;
  readonly stepKbPerS?: number;
  readonly floorKbPerS?: number;
  readonly diskFloorKbPerS?: number;
  readonly vmmTimeMs?: number;
}

export interface SharerMessage {
  readonly server: string;
  readonly migrationId: string;
}

export interface PathLinkMessage {
  readonly link: string;
  readonly capacityKbPerS?: number;
  readonly sharers: readonly SharerMessage[];
}

export interface BrokerMessage {
  readonly migrationId: string;
  readonly terms: BrokerTermsMessage | null;
  readonly path: readonly PathLinkMessage[];
  readonly zone: string;
  readonly ratio?: number;
  readonly networkLimitKbPerS: number;
  readonly diskLimitKbPerS: number;
  readonly hotLinks: readonly string[];
  readonly askedBy: readonly string[];
  readonly leftBytes: number;
  readonly reason: string;
  readonly decidedUnixMs?: number;
  readonly decisions: number;
  readonly ended: boolean;
}

interface GetBrokerRequest {
  readonly migrationId: string;
}

interface ListBrokersResponse {
  readonly brokers: readonly BrokerMessage[];
  readonly nextPageToken: string;
}

interface SetBrokerPathRequest {
  readonly migrationId: string;
  readonly path: readonly PathLinkMessage[];
}

export interface BackOffRequestMessage {
  readonly migrationId: string;
  readonly from: string;
  readonly link: string;
  readonly validForMs: number;
  readonly ratio: number;
}

interface BackOffResponse {
  readonly answer: string;
}

/** Request and response of every method. */
export interface BrokerMethods {
  readonly GetBroker: readonly [GetBrokerRequest, BrokerMessage];
  readonly ListBrokers: readonly [PageRequest, ListBrokersResponse];
  readonly SetBrokerPath: readonly [SetBrokerPathRequest, BrokerMessage];
  readonly BackOff: readonly [BackOffRequestMessage, BackOffResponse];
}

export type BrokerMethod = keyof BrokerMethods;
