import type { RunningContender } from './contender.js';

export interface FsSectionOptions {
  /** Measurements of each cell; the tables show their medians. */
  readonly rounds: number;
  /** Seconds of one measurement, at most. */
  readonly seconds: number;
  /** Only rows whose name contains this. */
  readonly only: string;
  /** Bytes of the image. */
  readonly size: number;
  /** Files of the metadata rows. */
  readonly files: number;
}

export interface FsSetting {
  readonly contenders: readonly RunningContender[];
  readonly options: FsSectionOptions;
  /** Processes that belong to the measurement: whatever else uses the CPUs disturbs it. */
  readonly pids: readonly number[];
  /** Ends what is being measured when the program is interrupted. */
  readonly signal: AbortSignal;
}

/** A part of `bench fs`: its tables, and everything measured. */
export interface FsSection {
  readonly text: string;
  readonly missed: number;
  /** One line each: who is left out of which row, and why. */
  readonly failures: readonly string[];
  readonly samples: readonly object[];
}

/** All samples with the row and the competitor that they belong to, for the raw data. */
export const labelled = <T>(row: string, samples: ReadonlyMap<string, readonly T[]>): readonly object[] =>
  [...samples].map(([who, list]) => ({ row, who, samples: list }));

export const failureLines = (row: string, failures: ReadonlyMap<string, string>): readonly string[] =>
  [...failures].map(([who, why]) => `${who}: left out of "${row}": ${why.split('\n').join(' ')}`);
