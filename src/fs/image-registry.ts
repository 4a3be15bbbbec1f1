import assert from 'node:assert/strict';
import { readRecord } from './image-record.js';
import type { ImageSlot, ImageTable } from './image-table.js';
import { IMAGE_SLOTS_MAX, ImageMode } from './image-table.js';
import type { InodeNumber } from './stat-buffer.js';

/** Says that every slot is taken; a caller answers ENFILE. */
export const NO_SLOT = -1;

interface Entry {
  readonly slot: ImageSlot;
  readonly device: number;
  readonly inode: InodeNumber;
  opens: number;
  pinned: boolean;
}

/**
 * Which regular files are open or pinned, by (device, inode), and the slot of each in the shared table. Used by
 * one thread only, the owner of the namespace.
 *
 * Invariant: a slot is taken exactly while its file has an open handle or a pin, so its descriptor keeps the
 * inode number from being reused.
 */
export class ImageRegistry {
  readonly #table: ImageTable;
  readonly #onDamagedRecord: (error: unknown) => void;
  readonly #devices = new Map<number, Map<InodeNumber, Entry>>();
  readonly #entries: (Entry | undefined)[] = [];
  readonly #free: ImageSlot[] = [];
  #pins = 0;

  constructor(table: ImageTable, onDamagedRecord: (error: unknown) => void) {
    this.#table = table;
    this.#onDamagedRecord = onDamagedRecord;
  }

  /** Counts one more user of the file behind `fd` (not O_PATH); `NO_SLOT` when the table is full. */
  acquire(device: number, inode: InodeNumber, fd: number): ImageSlot {
    let entry = this.#find(device, inode);
    if (!entry) {
      const slot = this.#freeSlot();
      if (slot >= IMAGE_SLOTS_MAX) return NO_SLOT;
      entry = { slot, device, inode, opens: 0, pinned: false };
      this.#entries[slot] = entry;
      const files = this.#devices.get(device);
      if (files) files.set(inode, entry);
      else this.#devices.set(device, new Map([[inode, entry]]));
      this.#setInitialMode(slot, fd);
    }
    entry.opens++;
    return entry.slot;
  }

  release(slot: ImageSlot): void {
    const entry = this.#entryOf(slot);
    assert(entry.opens > 0, `image slot ${slot} released more often than acquired`);
    entry.opens--;
    if (entry.opens > 0) return;
    assert(!entry.pinned, `image slot ${slot} left while pinned`);
    this.#entries[slot] = undefined;
    this.#free.push(slot);
    const files = this.#devices.get(entry.device);
    files?.delete(entry.inode);
    if (files?.size === 0) this.#devices.delete(entry.device);
    this.#table.setMode(slot, ImageMode.idle);
    this.#table.setUncached(slot, false);
  }

  /** One whose last file has no call left that does not return: another image would be served as stuck. */
  #freeSlot(): ImageSlot {
    const at = this.#free.findLastIndex((slot) => this.#table.handOver(slot) === 0);
    return at < 0 ? this.#entries.length : this.#free.splice(at, 1)[0]!;
  }

  /** The slot of the file while it is open or pinned, else `NO_SLOT`. */
  slotOf(device: number, inode: InodeNumber): ImageSlot {
    return this.#find(device, inode)?.slot ?? NO_SLOT;
  }

  identityOf(slot: ImageSlot): { readonly device: number; readonly inode: InodeNumber } {
    return this.#entryOf(slot);
  }

  /** Marks a slot that the caller has acquired: the names of its file must stay. False: it is marked already. */
  pin(slot: ImageSlot): boolean {
    const entry = this.#entryOf(slot);
    if (entry.pinned) return false;
    entry.pinned = true;
    this.#pins++;
    return true;
  }

  /** Takes the mark away; the caller still has to `release` what it acquired. */
  unpin(slot: ImageSlot): void {
    const entry = this.#entryOf(slot);
    assert(entry.pinned, `image slot ${slot} is not pinned`);
    entry.pinned = false;
    this.#pins--;
  }

  /** Whether any image is pinned: the common case is none, and then no name needs looking at. */
  get anyPinned(): boolean {
    return this.#pins > 0;
  }

  isPinned(device: number, inode: InodeNumber): boolean {
    return this.#find(device, inode)?.pinned ?? false;
  }

  #find(device: number, inode: InodeNumber): Entry | undefined {
    return this.#devices.get(device)?.get(inode);
  }

  #entryOf(slot: ImageSlot): Entry {
    const entry = this.#entries[slot];
    assert(entry, `image slot ${slot} is free`);
    return entry;
  }

  /** Fails closed: a record that cannot be read or understood refuses writes (G3). */
  #setInitialMode(slot: ImageSlot, fd: number): void {
    let role: 'owner' | 'fenced' | 'replica' = 'owner';
    try {
      role = readRecord(fd)?.role ?? 'owner';
    } catch (error) {
      role = 'fenced';
      this.#onDamagedRecord(error);
    }
    this.#table.setMode(slot, role === 'owner' ? ImageMode.idle : ImageMode.fenced);
    this.#table.setUncached(slot, role === 'replica');
  }
}
