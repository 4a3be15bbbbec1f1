/** What a broker decides, and from what (paper, Algorithms 1 and 2). Pure values: time is an argument. */
import type { BrokerTerms, BrokerZone } from '../../leaves/broker.js';
import type { MigrationState } from '../../leaves/migration.js';
import type { TransferLoad } from '../../leaves/time-left.js';
import type { BytesPerSecond, Millis } from '../../leaves/units.js';

/** One look at a migration. */
export interface Observation {
  /** Wall clock. */
  readonly at: Millis;
  readonly state: MigrationState;
  readonly load: TransferLoad;
}

/** Who wants bandwidth at this moment. */
export interface Congestion {
  /** Links of the path that are hot: other traffic wants them. */
  readonly hotLinks: readonly string[];
  /** Links of the path that are saturated, by whomever: their sharers can be asked. */
  readonly saturatedLinks: readonly string[];
  /** Migrations in danger whose request to back off is valid now. */
  readonly askedBy: readonly string[];
}

export interface Case {
  readonly terms: BrokerTerms;
  /** Wall clock; absent: none, so never in danger. */
  readonly deadline?: Millis;
}

/** State of Algorithm 2 between two decisions. */
export interface NetworkMemory {
  readonly lastAction: 'increase' | 'reduce';
  /** The last rate that caused no congestion. */
  readonly lastOk?: BytesPerSecond;
  readonly quietPeriods: number;
}

/** What a disk limit has to remember, because under one the guest's own rate cannot be observed. */
export interface DiskMemory {
  /** Bytes per second that the guest wrote, or was seen to want. */
  readonly demand: number;
  /** Decisions in a row at which Expression 1 did not hold. */
  readonly endangeredPeriods: number;
  /** What the guest's smoothed rate can have got to since the limit was raised; absent without a limit. */
  readonly reachable?: BytesPerSecond;
  /** When it was decided: wall clock. */
  readonly at: Millis;
}

/** Nothing of the past counts but the previous one of these. */
export interface Decision {
  readonly zone: BrokerZone;
  readonly ratio?: number;
  readonly netLimit: BytesPerSecond;
  readonly diskLimit: BytesPerSecond;
  readonly memory: NetworkMemory;
  readonly disk: DiskMemory;
  /** Decisions in a row without a byte acknowledged while copying. */
  readonly stalledPeriods: number;
  /** Links whose sharers are to be asked to back off. */
  readonly askOn: readonly string[];
  /** One line for the log and the operator: what was done and why, with the numbers. */
  readonly reason: string;
}
