import type Bottleneck from 'bottleneck';
import type { BackingCalls } from '../../fs/backing-calls.js';
import type { ImageStore } from '../../fs/image-store.js';
import type { GraceCounters, ImageTable } from '../../fs/image-table.js';
import type { BitmapAnnouncement } from '../../fs/participant.js';
import type { Clock } from '../../leaves/clock.js';
import type { MigrationSnapshot } from '../../leaves/migration.js';
import type { Remote } from '../../leaves/port-rpc.js';
import type { TokenBucket } from '../../leaves/token-bucket.js';
import type { Bytes } from '../../leaves/units.js';
import type { PeerConnection } from '../wire/peer-connection.js';
import type { BufferPool } from './buffer-pool.js';
import type { StreamLink } from './stream-link.js';

export type Log = (level: 'debug' | 'info' | 'warn' | 'error', message: string, fields?: object) => void;

/** What all migrations of one host share. */
export interface SourceEnvironment {
  readonly clock: Clock;
  /** From 0 (inclusive) to 1. */
  readonly random: () => number;
  readonly log: Log;
  readonly table: ImageTable;
  readonly grace: GraceCounters;
  /** Lets other work of this thread run once. */
  readonly turn: () => Promise<void>;
  readonly calls: BackingCalls;
  readonly store: Remote<ImageStore>;
  readonly hostBucket: TokenBucket;
  /** Bounds and prioritises the copy batches of all migrations. */
  readonly turns: Bottleneck;
  readonly buffers: BufferPool;
  readonly blockSize?: Bytes | undefined;
  /** Identifies this run of the daemon. */
  readonly instance: string;
  readonly hostname: string;
  /** Images in sync may be mirrored by the threads that get their writes. */
  readonly lanes: boolean;
  /** Data address of this daemon, `host:port`. */
  readonly dataAddress: () => string;
  readonly connect: (address: string, signal: AbortSignal) => Promise<PeerConnection>;
  /** Absent: everything goes over connections. */
  readonly openStream?: (
    address: string,
    hello: { readonly migrationId: string; readonly token: Uint8Array },
    signal: AbortSignal,
  ) => Promise<StreamLink>;
  readonly announce: (announcement: BitmapAnnouncement) => void;
  readonly publish: (snapshot: MigrationSnapshot) => void;
}
