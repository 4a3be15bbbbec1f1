import type { MessagePort } from 'node:worker_threads';
import type { FileSystemEnds } from '../fs/participant.js';
import type { PlainError } from '../leaves/errors.js';
import type { HostPort } from '../leaves/host-port.js';
import type { MigrationControl, MigrationSnapshot } from '../leaves/migration.js';
import type { TlsIdentity } from '../leaves/tls-identity.js';
import type { Bytes, BytesPerSecond, Millis } from '../leaves/units.js';

/** What the replica thread is started with. */
export interface ReplicaThreadData {
  readonly ends: FileSystemEnds;
  readonly data: HostPort;
  readonly blockSize?: Bytes | undefined;
  readonly netLimit: BytesPerSecond;
  readonly peerTimeout: Millis;
  readonly tls?: TlsIdentity | undefined;
  /** Calls `ReplicaThreadMethods`. */
  readonly control: MessagePort;
  /** Takes `ReplicaThreadEvent`s. */
  readonly events: MessagePort;
}

/** `watch` cannot cross a port: snapshots are events. */
export type ReplicaThreadMethods = Omit<MigrationControl, 'watch'> & {
  shutdown(): Promise<void>;
  interrupt(unique: bigint): Promise<void>;
};

export type ReplicaThreadEvent =
  | { readonly type: 'listening'; readonly address: string }
  | { readonly type: 'failed'; readonly error: PlainError }
  | { readonly type: 'snapshot'; readonly snapshot: MigrationSnapshot }
  | {
      readonly type: 'log';
      readonly level: 'debug' | 'info' | 'warn' | 'error';
      readonly message: string;
      readonly fields: object;
    };
