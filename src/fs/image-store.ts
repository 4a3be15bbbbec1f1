/** What the owner of the namespace does for the replica thread (served over a port; errors are MigrateFsError). */
import type { PlainError } from '../leaves/errors.js';
import type { Bytes } from '../leaves/units.js';
import type { ImageRecord } from './image-record.js';
import type { ImageSlot } from './image-table.js';

/** An image held open for a migration: its name cannot be unlinked or renamed (EBUSY), its slot stays. */
export interface PinnedImage {
  readonly slot: ImageSlot;
  /** Backing descriptor, opened O_RDWR, closed by `release`. */
  readonly fd: number;
  readonly size: Bytes;
  readonly allocated: Bytes;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly record: ImageRecord | null;
}

export interface ReplicaAttributes {
  readonly size: Bytes;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly record: ImageRecord;
}

/** An image as it is now, opened for the moment only. */
export interface StoredImage {
  readonly size: Bytes;
  readonly allocated: Bytes;
  readonly record: ImageRecord | null;
  /** While it is pinned. */
  readonly slot?: ImageSlot;
}

export interface FreeSpace {
  /** The file system. */
  readonly device: number;
  /** Bytes free to root. */
  readonly free: Bytes;
}

export interface ImageStore {
  /**
   * Opens and pins an existing image by its name relative to the exported directory.
   * INVALID_ARGUMENT: absolute, `..`, a symlink out, not a regular file. NOT_FOUND. FAILED_PRECONDITION: pinned already.
   */
  pin(name: string): PinnedImage;
  /**
   * Looks at images, which are named as for `pin`; an error stands in the place of what cannot be looked at. A damaged
   * record is DATA_LOSS.
   */
  describe(names: readonly string[]): readonly (StoredImage | PlainError)[];
  /**
   * Creates a replica at its final path, full size, sparse, in mode `fenced`, uncached, with its record persisted;
   * missing parent directories are made and remembered. ALREADY_EXISTS: the name is taken, nothing was touched.
   */
  createReplica(name: string, attributes: ReplicaAttributes): PinnedImage;
  /** Gives the pin up. `remove` also unlinks the file (a replica) and the directories made for it that are empty. */
  release(slot: ImageSlot, remove: boolean): void;
  /** Drops what the kernel caches of the image's pages and attributes. */
  invalidate(slot: ImageSlot): void;
  /** Of the file system on which each image is or would be made: others may be mounted below the exported directory. */
  freeSpace(names: readonly string[]): readonly FreeSpace[];
}
