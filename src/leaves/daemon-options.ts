import type { HostPort } from './host-port.js';
import type { TlsIdentity } from './tls-identity.js';
import type { Bytes, BytesPerSecond, Millis } from './units.js';
import { bytes, KiB, MiB } from './units.js';

export type Transport = 'kernel' | 'fuse-native';
export const TRANSPORTS: readonly Transport[] = ['kernel', 'fuse-native'];

export type LogLevel = 'fatal' | 'error' | 'warn' | 'info' | 'debug' | 'trace' | 'silent';
export const LOG_LEVELS: readonly LogLevel[] = ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'];

export const BLOCK_SIZE_MIN = bytes(4 * KiB);
export const BLOCK_SIZE_MAX = bytes(MiB);
/** What is chosen without an order is not coarser. */
export const BLOCK_SIZE_DEFAULT = bytes(64 * KiB);

/** What a daemon is started with, checked and complete. */
export interface DaemonOptions {
  /** Absolute path of the exported directory. */
  readonly imageDir: string;
  /** Absolute path; equal to `imageDir` to mount over it. */
  readonly mountpoint: string;
  /** Address of the control API. Port 0: any free one. */
  readonly listen: HostPort;
  /** Address of the data port. Port 0: any free one. */
  readonly data: HostPort;
  readonly transport: Transport;
  /** Data workers, at least. */
  readonly workers: number;
  /** Data workers while requests wait for them, at most. */
  readonly workersMax: number;
  /** Whether the kernel may read files that are open for reading only itself. */
  readonly passthrough: boolean;
  /** Absent: no certificates, so loopback addresses only unless `insecure`. */
  readonly tls?: TlsIdentity;
  readonly insecure: boolean;
  readonly logLevel: LogLevel;
  /** Lines for people instead of JSON. */
  readonly logPretty: boolean;
  /** How long a silent peer is waited for before it counts as lost; a mirrored guest write waits as long. */
  readonly peerTimeout: Millis;
  /** What one dirty bit covers: a power of two from 4 KiB to 1 MiB. Absent: each image gets what fits its size. */
  readonly blockSize?: Bytes;
  /** Of all migrations of this host together. */
  readonly netLimit: BytesPerSecond;
  /** Where hot spots come from: JSON as `hotSpotsConfigOf` reads it; absent: the interfaces of this host. */
  readonly hotSpots?: unknown;
}
