/** What the scheduler asks of the daemons; implemented around the control client in the composition root. */
import type { BrokerSnapshot, PathLink } from '../../leaves/broker.js';
import type { CutoverPolicy, ImageDescription, MigrationSnapshot } from '../../leaves/migration.js';
import type { Millis } from '../../leaves/units.js';

/** A migration as the scheduler orders it. */
export interface MigrationOrder {
  /** The daemon answers a second start with the same one with the migration of the first. */
  readonly requestId: string;
  readonly images: readonly string[];
  /** Name of the target host. */
  readonly target: string;
  readonly cutover: CutoverPolicy;
  /** Counted by the daemon's clock, which may differ. */
  readonly deadlineAfter?: Millis;
  readonly priority: number;
  readonly danger: number;
  readonly warning: number;
  readonly important: boolean;
  readonly vmmTime: Millis;
}

/**
 * Hosts by their names in the topology. Every method rejects with a `MigrateFsError`: the daemon's refusal, or
 * UNAVAILABLE or DEADLINE_EXCEEDED where what was asked for may have happened or not. Aborting `signal` rejects with its
 * reason at once.
 */
export interface HostControl {
  /** One for each image, in that order. */
  describe(
    host: string,
    images: readonly string[],
    signal: AbortSignal,
  ): Promise<readonly ImageDescription[]>;
  start(host: string, order: MigrationOrder, signal: AbortSignal): Promise<MigrationSnapshot>;
  list(host: string, signal: AbortSignal): Promise<readonly MigrationSnapshot[]>;
  /** The current snapshot, then every change; ends after a final state, or quietly when `signal` aborts. */
  watch(host: string, migrationId: string, signal: AbortSignal): AsyncIterable<MigrationSnapshot>;
  cancel(host: string, migrationId: string, signal: AbortSignal): Promise<MigrationSnapshot>;
  /** Resolves when the target owns the images. */
  cutover(host: string, migrationId: string, signal: AbortSignal): Promise<MigrationSnapshot>;
  setPath(host: string, migrationId: string, path: readonly PathLink[], signal: AbortSignal): Promise<void>;
  /** NOT_FOUND: it has none. */
  broker(host: string, migrationId: string, signal: AbortSignal): Promise<BrokerSnapshot>;
  /** Where other brokers find those of the host: `host:port`. */
  controlAddress(host: string): string;
}

/** Whether nothing is known of what became of a call that failed so. */
export const isUncertain = (code: string): boolean =>
  code === 'UNAVAILABLE' || code === 'DEADLINE_EXCEEDED' || code === 'CANCELLED';
