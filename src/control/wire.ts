/** The messages of proto/migratefs.proto as the loader gives them: 64-bit integers as numbers, enums by name. */

import type { Holder, UnmountRequest } from '../leaves/unmount.js';
import type { BrokerTermsMessage } from './broker-wire.js';
import type { PageRequest } from './page.js';

export interface MigrationIdMessage {
  readonly migrationId: string;
}

export interface StartMigrationRequest {
  readonly target: string;
  readonly images: readonly string[];
  readonly cutover: string;
  readonly networkLimitKbPerS: number;
  readonly diskLimitKbPerS: number;
  readonly deadlineUnixMs?: number;
  readonly deadlineAfterMs?: number;
  readonly priority: number;
  readonly broker?: BrokerTermsMessage | null;
  /** Empty: none. */
  readonly requestId?: string;
}

export interface CancelRequest extends MigrationIdMessage {
  readonly takeBack: boolean;
}

export interface SetLimitRequest extends MigrationIdMessage {
  readonly limitKbPerS: number;
}

export interface QueryProgressRequest extends MigrationIdMessage {
  readonly rate: string;
}

export interface QueryProgressResponse {
  readonly networkKbPerS?: number;
  readonly diskKbPerS?: number;
}

export interface QueryCompletionResponse {
  readonly completed: boolean;
  readonly state: string;
}

export interface ImageProgressMessage {
  readonly name: string;
  readonly sizeBytes: number;
  readonly allocatedBytes: number;
  readonly leftBytes: number;
  readonly dirtyBytes: number;
  readonly generation: number;
}

export interface TransferLoadMessage {
  readonly leftBytes: number;
  readonly allocatedBytes: number;
  readonly networkKbPerS: number;
  readonly dirtyKbPerS: number;
  readonly diskKbPerS: number;
  readonly networkDeviationKbPerS: number;
  readonly dirtyDeviationKbPerS: number;
  readonly converging: boolean;
}

export interface MigrationMessage {
  readonly id: string;
  readonly role: string;
  readonly state: string;
  readonly peer: string;
  readonly images: readonly ImageProgressMessage[];
  readonly cutover: string;
  readonly priority: number;
  readonly deadlineUnixMs?: number | undefined;
  readonly startedUnixMs: number;
  readonly endedUnixMs?: number | undefined;
  readonly totalBytes: number;
  readonly leftBytes: number;
  readonly sentBytes: number;
  readonly resentBytes: number;
  readonly mirroredBytes: number;
  readonly networkKbPerS: number;
  readonly diskKbPerS: number;
  readonly dirtyKbPerS: number;
  readonly networkLimitKbPerS: number;
  readonly diskLimitKbPerS: number;
  readonly etaMs?: number | undefined;
  readonly error?: { readonly code: string; readonly message: string } | null | undefined;
  readonly cutoverStallMs?: number | undefined;
  readonly load?: TransferLoadMessage | null | undefined;
  readonly etaLowMs?: number | undefined;
  readonly etaHighMs?: number | undefined;
  readonly operatorNetworkLimitKbPerS: number;
  readonly operatorDiskLimitKbPerS: number;
  readonly brokerNetworkLimitKbPerS: number;
  readonly brokerDiskLimitKbPerS: number;
  readonly requestId: string;
}

export interface ListMigrationsResponse {
  readonly migrations: readonly MigrationMessage[];
  readonly nextPageToken: string;
}

export interface DescribeImagesRequest {
  readonly names: readonly string[];
}

export interface ImageDescriptionMessage {
  readonly name: string;
  readonly error?: { readonly code: string; readonly message: string } | null | undefined;
  readonly sizeBytes: number;
  readonly allocatedBytes: number;
  readonly role: string;
  readonly generation: number;
  readonly peer: string;
  readonly migrationId: string;
}

export interface DescribeImagesResponse {
  readonly images: readonly ImageDescriptionMessage[];
}

export interface VerifyRequest {
  readonly what: string;
}

export interface VerifyReportMessage {
  readonly image: string;
  readonly comparedBytes: number;
  readonly mismatches: readonly { readonly offsetBytes: number; readonly lengthBytes: number }[];
  readonly mismatchCount: number;
}

export interface VerifyResponse {
  readonly reports: readonly VerifyReportMessage[];
}

export interface DaemonStatusMessage {
  readonly version: string;
  readonly pid: number;
  readonly hostname: string;
  readonly imageDir: string;
  readonly mountpoint: string;
  readonly transport: string;
  readonly controlAddress: string;
  readonly dataAddress: string;
  readonly startedUnixMs: number;
  readonly links: readonly LinkLoadMessage[];
}

export interface LinkLoadMessage {
  readonly link: string;
  readonly atUnixMs: number;
  readonly saturated: boolean;
  readonly hot: boolean;
  readonly kbPerS?: number | undefined;
  readonly capacityKbPerS?: number | undefined;
  readonly source: string;
}

export interface UnmountResponse {
  readonly holders: readonly Holder[];
}

export type Empty = Readonly<Record<string, never>>;

/** Request and response of every unary method. */
export interface UnaryMethods {
  readonly StartMigration: readonly [StartMigrationRequest, MigrationMessage];
  readonly SetNetworkLimit: readonly [SetLimitRequest, MigrationMessage];
  readonly SetDiskLimit: readonly [SetLimitRequest, MigrationMessage];
  readonly QueryProgress: readonly [QueryProgressRequest, QueryProgressResponse];
  readonly QueryCompletion: readonly [MigrationIdMessage, QueryCompletionResponse];
  readonly GetMigration: readonly [MigrationIdMessage, MigrationMessage];
  readonly ListMigrations: readonly [PageRequest, ListMigrationsResponse];
  readonly Pause: readonly [MigrationIdMessage, MigrationMessage];
  readonly Resume: readonly [MigrationIdMessage, MigrationMessage];
  readonly Cancel: readonly [CancelRequest, MigrationMessage];
  readonly Cutover: readonly [MigrationIdMessage, MigrationMessage];
  readonly DescribeImages: readonly [DescribeImagesRequest, DescribeImagesResponse];
  readonly Verify: readonly [VerifyRequest, VerifyResponse];
  readonly GetStatus: readonly [Empty, DaemonStatusMessage];
  readonly Unmount: readonly [UnmountRequest, UnmountResponse];
}

export type UnaryMethod = keyof UnaryMethods;
