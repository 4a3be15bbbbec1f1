/** The vocabulary of brokers: what one is started with, tells its peers, and reports. */
import type { Bytes, BytesPerSecond, Millis } from './units.js';

/** How one migration is to be managed (paper, section IV). Ratios, not percentages: 300 % is 3. */
export interface BrokerTerms {
  /** In danger below this ratio of time to deadline and time left. Above 1. */
  readonly danger: number;
  /** The guest's writes are limited at or below this ratio. Not below `danger`. */
  readonly warning: number;
  /** In danger as soon as its ratio is at the warning threshold: the first to ignore congestion and to ask others. */
  readonly important: boolean;
  /** Between two decisions; absent: a fiftieth of the time to the deadline, 1 s to 60 s. */
  readonly period?: Millis;
  /** `n` of Algorithm 2: after more quiet periods than this there is no limit. */
  readonly quietPeriods: number;
  /** `C` of Algorithm 2. */
  readonly step: BytesPerSecond;
  /** A migration is never made slower than this. */
  readonly floor: BytesPerSecond;
  /** A guest is never made to write slower than this. */
  readonly diskFloor: BytesPerSecond;
  /** `VMM_time` of Expression 1: what the hypervisor needs once the disks are in sync. */
  readonly vmmTime: Millis;
}

/** How a migration is asked to be managed: terms that are absent have their defaults; `off`: it has no broker. */
export type BrokerChoice = 'off' | Partial<BrokerTerms>;

/** One link of the path of a migration, and the other migrations that use it. */
export interface PathLink {
  readonly link: string;
  readonly capacity?: BytesPerSecond;
  readonly sharers: readonly Sharer[];
}

/** Where the broker of another migration is found. */
export interface Sharer {
  /** Control address of its source daemon, `host:port`. */
  readonly server: string;
  readonly migrationId: string;
}

/** A broker in danger asks another to give bandwidth up, for some time. */
export interface BackOffRequest {
  /** Whom it is for. */
  readonly migrationId: string;
  /** Who asks. */
  readonly from: string;
  readonly link: string;
  /** It counts for this long after it has come. */
  readonly validFor: Millis;
  /** Laxity ratio of the one that asks, for the log. */
  readonly ratio: number;
}

/** `obeyed`: counts at the next decision. `in-danger`: the one asked is in danger itself. */
export type BackOffAnswer = 'obeyed' | 'in-danger' | 'ended';

export type BrokerZone = 'calm' | 'warning' | 'danger';

/** What a broker reports; a plain value. */
export interface BrokerSnapshot {
  readonly migrationId: string;
  readonly terms: BrokerTerms;
  /** Between two decisions, as it is now. */
  readonly period: Millis;
  readonly path: readonly PathLink[];
  readonly zone: BrokerZone;
  /** Time to deadline divided by time left; absent without a deadline or an estimate. */
  readonly ratio?: number;
  readonly netLimit: BytesPerSecond;
  readonly diskLimit: BytesPerSecond;
  /** Links that made it back off at the last decision, and migrations that asked for it. */
  readonly hotLinks: readonly string[];
  readonly askedBy: readonly string[];
  readonly bytesLeft: Bytes;
  /** The last decision in words, with its numbers. */
  readonly reason: string;
  /** Wall clock; absent before the first decision. */
  readonly decidedAt?: Millis;
  readonly decisions: number;
  /** Nothing is decided any more, and no limit of it is in force. */
  readonly ended: boolean;
}

/** What the control API may ask of the brokers of a host; every method rejects with a `MigrateFsError`. */
export interface BrokerControl {
  get(migrationId: string): Promise<BrokerSnapshot>;
  list(): Promise<readonly BrokerSnapshot[]>;
  /** New links and sharers of a migration: others have started or ended. */
  setPath(migrationId: string, path: readonly PathLink[]): Promise<BrokerSnapshot>;
  backOff(request: BackOffRequest): Promise<BackOffAnswer>;
}
