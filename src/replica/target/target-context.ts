import type { BackingCalls } from '../../fs/backing-calls.js';
import type { ImageRecord } from '../../fs/image-record.js';
import type { ImageStore } from '../../fs/image-store.js';
import type { GraceCounters, ImageTable } from '../../fs/image-table.js';
import type { Clock } from '../../leaves/clock.js';
import type { MigrationSnapshot } from '../../leaves/migration.js';
import type { Remote } from '../../leaves/port-rpc.js';

/** What the receiving side needs of the daemon around it. */
export interface TargetContext {
  readonly store: Remote<ImageStore>;
  readonly table: ImageTable;
  readonly grace: GraceCounters;
  readonly calls: BackingCalls;
  readonly clock: Clock;
  /** Persists the record; throws a `MigrateFsError` when it could not. */
  readonly writeRecord: (fd: number, record: ImageRecord) => void;
  /** Yields to the event loop; for grace periods. */
  readonly turn: () => Promise<void>;
  readonly log: (level: 'debug' | 'info' | 'warn' | 'error', message: string, fields?: object) => void;
  /** Told of every change worth showing. */
  readonly changed: (snapshot: MigrationSnapshot) => void;
  /** What proves that a stream belongs to a connection; absent: none is taken. */
  readonly newToken?: () => Uint8Array;
  /** Identifies this run of the daemon. */
  readonly instance: string;
  readonly host: string;
}
