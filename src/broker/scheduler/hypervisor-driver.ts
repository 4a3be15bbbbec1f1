import type { Bytes, Millis } from '../../leaves/units.js';

/** A VM to be moved whose disks are in sync. */
export interface MoveJob {
  readonly task: string;
  /** With the task the name of this move: whoever asks again means the same one. */
  readonly attempt: number;
  readonly vm: string;
  readonly images: readonly string[];
  readonly source: string;
  readonly target: string;
  readonly migrationId: string;
  readonly deadline?: Millis;
  /** Nobody can have begun it: it is asked for the first time. */
  readonly first?: boolean;
}

/** What a driver knows of a move; what it does not is absent. */
export interface MoveProgress {
  /** Of the VM's memory. */
  readonly ramSent?: Bytes;
  readonly ramLeft?: Bytes;
  /** How long the VM stood still, once that is over. */
  readonly vmDowntime?: Millis;
}

/** Moves VMs between hosts. Every call may be made again, also by another process after a crash. */
export interface HypervisorDriver {
  /**
   * Moves the VM, or goes on waiting for a move that was begun. Aborting `signal` ends the waiting, not the move.
   * Rejects with why the VM was not moved. `report` may be called at any rate.
   */
  move(job: MoveJob, signal: AbortSignal, report?: (progress: MoveProgress) => void): Promise<void>;
  /** Ends a move that is under way; whether the VM had been moved already. Rejects where that cannot be known. */
  stop(job: MoveJob): Promise<'moved' | 'not-moved'>;
  /** Undoes what a move that did not succeed has left; rejects with why it could not. */
  rollBack(job: MoveJob, signal: AbortSignal): Promise<void>;
  /** Drops what it keeps of the moves of a task that is forgotten. */
  forget(task: string): void;
}
