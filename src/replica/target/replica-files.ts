import { fchmodSync, fchownSync } from 'node:fs';
import type { ImageRecord } from '../../fs/image-record.js';
import type { PinnedImage } from '../../fs/image-store.js';
import { ImageMode } from '../../fs/image-table.js';
import { MigrateFsError } from '../../leaves/errors.js';
import type { Bytes } from '../../leaves/units.js';
import { bytes, MiB } from '../../leaves/units.js';
import { BackingFile, backingError } from './backing-file.js';
import type { ImageTerms, MigrationTerms } from './migration-terms.js';
import type { TargetContext } from './target-context.js';

/** Left over for the file system's own metadata when a replica is admitted. */
const SPACE_RESERVE: Bytes = bytes(16 * MiB);

type Context = Pick<TargetContext, 'store' | 'table' | 'log'>;

/** The replicas of one migration as they lie on disk. */
interface FoundReplicas {
  /** In the order of the terms. */
  readonly pinned: readonly PinnedImage[];
  /** How many of them this host already owns through this migration. */
  readonly owned: number;
}

/** Another migration, which has been told that there is room for it. */
interface Promised {
  readonly images: readonly { readonly name: string }[];
  readonly bytesPromised: number;
}

interface Disk {
  readonly free: number;
  needed: number;
  promised: number;
}

/**
 * RESOURCE_EXHAUSTED unless every disk has room for what the source allocates on it, beside what is promised to others: all
 * of it, where one has images on several disks. `present`: what replicas that are taken over have there already.
 */
export const checkSpace = async (
  { store }: Context,
  { images }: MigrationTerms,
  others: readonly Promised[],
  present: readonly PinnedImage[] = [],
): Promise<void> => {
  const waiting = others.filter(({ bytesPromised }) => bytesPromised > 0);
  const names = [...images, ...waiting.flatMap((other) => other.images)].map(({ name }) => name);
  const spaces = await store.freeSpace(names);
  const disks = new Map<number, Disk>();
  for (const [index, { allocated }] of images.entries()) {
    const { device, free } = spaces[index]!;
    const disk = disks.get(device) ?? { free, needed: 0, promised: 0 };
    disk.needed += allocated - (present[index]?.allocated ?? 0);
    disks.set(device, disk);
  }
  let from = images.length;
  for (const other of waiting) {
    const own = spaces.slice(from, from + other.images.length);
    from += other.images.length;
    for (const [device, disk] of disks)
      if (own.some((space) => space.device === device)) disk.promised += other.bytesPromised;
  }
  for (const disk of disks.values()) checkDisk(disk);
};

const checkDisk = ({ free, needed, promised }: Disk): void => {
  if (needed + promised + SPACE_RESERVE <= free) return;
  const others = promised > 0 ? ` (${promised} more are promised to other migrations)` : '';
  throw new MigrateFsError(
    'RESOURCE_EXHAUSTED',
    `the target's disk is too small: the images allocate ${needed} bytes, ${free} are free${others}`,
  );
};

const recordOf = ({ id, source }: MigrationTerms, { generation }: ImageTerms): ImageRecord => ({
  role: 'replica',
  generation,
  migration: id,
  peer: source,
  inode: 0,
});

/** Creates all replicas or none. The store's errors pass through. */
export const createReplicas = async (context: Context, terms: MigrationTerms): Promise<PinnedImage[]> => {
  const made: PinnedImage[] = [];
  try {
    for (const image of terms.images) {
      const { name, size, mode, uid, gid } = image;
      const record = recordOf(terms, image);
      made.push(await context.store.createReplica(name, { size, mode, uid, gid, record }));
    }
    return made;
  } catch (error) {
    await releaseAll(context, made, true);
    throw error;
  }
};

/**
 * Pins what earlier migrations from the same source address left unfinished here under all names of the terms; undefined,
 * and nothing stays pinned, when anything else is there, or nothing. They may be several: a crash within `takeOver` leaves
 * a group with two, and what is taken over is compared, whatever it is.
 */
export const pinAbandoned = async (
  context: Context,
  terms: MigrationTerms,
): Promise<PinnedImage[] | undefined> => {
  const pinned: PinnedImage[] = [];
  try {
    for (const { name } of terms.images) {
      const image = await pinIfThere(context, name);
      if (image) pinned.push(image);
      if (image?.record?.role === 'replica' && image.record.peer === terms.source) continue;
      await releaseAll(context, pinned, false);
      return undefined;
    }
    return pinned;
  } catch (error) {
    await releaseAll(context, pinned, false);
    throw error;
  }
};

/**
 * Makes what `pinAbandoned` has pinned replicas of this migration, with the sizes and attributes of the terms; the
 * bytes stay. On an error the pins are given back, and every file is still a replica.
 */
export const takeOver = async (
  context: Context & Pick<TargetContext, 'writeRecord' | 'calls'>,
  terms: MigrationTerms,
  pinned: readonly PinnedImage[],
): Promise<PinnedImage[]> => {
  try {
    return pinned.map((image, index) => {
      const wanted = terms.images[index]!;
      const { fd, slot } = image;
      const record = recordOf(terms, wanted);
      context.table.setMode(slot, ImageMode.fenced);
      context.table.setUncached(slot, true);
      context.writeRecord(fd, record);
      new BackingFile(fd, context.calls).resize(wanted.size);
      fchownSync(fd, wanted.uid, wanted.gid);
      fchmodSync(fd, wanted.mode);
      const { size, mode, uid, gid } = wanted;
      return { ...image, size, mode, uid, gid, record };
    });
  } catch (error) {
    await releaseAll(context, pinned, false);
    throw backingError('cannot take a replica over', error);
  }
};

/** Whether the file may be removed or written as a replica of this migration. */
const isReplica = ({ record }: PinnedImage, id: string): boolean =>
  record?.role === 'replica' && record.migration === id;

const isOwned = ({ record }: PinnedImage, id: string): boolean =>
  record?.role === 'owner' && record.migration === id;

/**
 * Pins what a forgotten migration left here. NOT_FOUND: an image is missing, or what has its name is not of this
 * migration; then nothing stays pinned.
 */
export const adoptReplicas = async (context: Context, terms: MigrationTerms): Promise<FoundReplicas> => {
  const pinned: PinnedImage[] = [];
  let owned = 0;
  try {
    for (const { name } of terms.images) {
      const image = await context.store.pin(name);
      pinned.push(image);
      if (isOwned(image, terms.id)) owned++;
      else if (isReplica(image, terms.id)) context.table.setUncached(image.slot, true);
      else
        throw new MigrateFsError(
          'NOT_FOUND',
          `'${name}' on the target is not a replica of migration ${terms.id}`,
        );
    }
    return { pinned, owned };
  } catch (error) {
    await releaseAll(context, pinned, false);
    throw error;
  }
};

/**
 * Removes what a forgotten migration left here, and nothing else. FAILED_PRECONDITION: this host owns an image through
 * this migration; nothing was removed.
 */
export const discardForgotten = async (context: Context, terms: MigrationTerms): Promise<void> => {
  const pinned: PinnedImage[] = [];
  try {
    for (const { name } of terms.images) {
      const image = await pinIfThere(context, name);
      if (!image) continue;
      pinned.push(image);
      if (isOwned(image, terms.id))
        throw new MigrateFsError(
          'FAILED_PRECONDITION',
          `the target owns '${name}' through migration ${terms.id}: it is not discarded`,
        );
    }
  } catch (error) {
    await releaseAll(context, pinned, false);
    throw error;
  }
  for (const image of pinned) await releaseAll(context, [image], isReplica(image, terms.id));
};

const pinIfThere = async ({ store }: Context, name: string): Promise<PinnedImage | undefined> => {
  try {
    return await store.pin(name);
  } catch (error) {
    // Pinned by somebody else: not a leftover of a migration that nobody here knows.
    const harmless: readonly string[] = ['NOT_FOUND', 'FAILED_PRECONDITION', 'INVALID_ARGUMENT'];
    if (error instanceof MigrateFsError && harmless.includes(error.code)) return undefined;
    throw error;
  }
};

/**
 * Releases every pin, whatever one of them answers; with `remove` the files go, too. Last made, first released: a
 * directory goes with the image it was made for, when the others in it are gone.
 */
export const releaseAll = async (
  { store, log }: Context,
  images: readonly { readonly slot: number }[],
  remove: boolean,
): Promise<void> => {
  for (const { slot } of images.toReversed()) {
    try {
      await store.release(slot, remove);
    } catch (error) {
      log('error', remove ? 'cannot remove a replica' : 'cannot release an image', {
        slot,
        error: (error as Error).message,
      });
    }
  }
};
