import type { MessagePort } from 'node:worker_threads';
import type { FileSystemEnds } from './participant.js';

export interface MountOptions {
  /** The backing directory, absolute. */
  readonly imageDir: string;
  /** Absolute; may be `imageDir` itself. */
  readonly mountpoint: string;
  /** Data workers of the kernel transport, at least. */
  readonly workers: number;
  /** While requests wait for them, at most. */
  readonly workersMax: number;
  /** Let the kernel read files that are open for reading only itself, where it can (kernel transport). */
  readonly passthrough: boolean;
  /** Descriptors of the process at most, where the system would allow more. */
  readonly openFilesMax?: number;
  /** Lines for the log; the daemon gives them to pino. */
  readonly log: (level: 'debug' | 'info' | 'warn' | 'error', message: string, fields?: object) => void;
}

/** A mount being served. `mountKernel` and `mountFuseNative` both resolve to one once the kernel has accepted it. */
export interface MountedFileSystem {
  readonly ends: FileSystemEnds;
  /** The message ports inside `ends`, to be transferred with it. */
  readonly transfer: readonly MessagePort[];
  /**
   * Takes the mount point away; the rest ends by itself, see `closed`. Rejects with FAILED_PRECONDITION, and goes on
   * serving, while files are open; `lazy` leaves those usable until they are closed.
   */
  detach(options: { lazy: boolean }): Promise<void>;
  /**
   * Unmounts and ends every thread. Rejects with FAILED_PRECONDITION, and goes on serving, while files are open;
   * `lazy` detaches at once and resolves when the last file is closed.
   */
  unmount(options: { lazy: boolean }): Promise<void>;
  /**
   * Tells of every request, by the kernel's number, whose caller got a signal; it may have been handed over to be
   * routed. Absent: the transport is not told.
   */
  onInterrupt?(listener: (unique: bigint) => void): void;
  /** Resolves when the mount is gone, however it went (umount(8) by an administrator included): the kernel asks nothing. */
  readonly gone: Promise<void>;
  /**
   * `leave` is called when the mount is gone, and waited for before any descriptor is closed: until then whoever else uses
   * images and connection may go on, and afterwards their numbers are those of other files. The last `leave` counts.
   */
  onGone(leave: () => Promise<void>): void;
  /** Resolves when the mount is gone and everything closed. Rejects when it went because a part of it has crashed. */
  readonly closed: Promise<void>;
}
