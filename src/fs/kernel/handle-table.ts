import assert from 'node:assert/strict';
import type { ImageSlot } from '../image-table.js';
import { IMAGE_SLOTS_MAX } from '../image-table.js';

const HANDLES_MAX = 262_144;
const HANDLE_WORDS = 4;
const FD = 0;
const SLOT = 1;
const KINDS = 2;

/** The backing descriptor was opened with O_DIRECT. */
export const HANDLE_ODIRECT = 1;
/** The backing descriptor was opened with O_DSYNC or O_SYNC: it syncs what is written through it. */
export const HANDLE_SYNCS = 2;
/** How the kernel serves the handle, see `serveHandle`. */
export const HANDLE_PASSED = 4;
export const HANDLE_DIRECT = 8;
export const HANDLE_CACHED = 16;

/**
 * Open files by handle, in shared memory: the owner of the namespace writes, data workers read. The kernel does not
 * use a handle before the reply to OPEN nor after RELEASE, which orders the accesses.
 */
export class HandleTable {
  readonly buffer: SharedArrayBuffer;
  readonly #words: Int32Array;
  /** Whether the file may carry set-user-ID or set-group-ID bits, by image slot. */
  readonly #privileged: Uint8Array;

  constructor(buffer = new SharedArrayBuffer(HANDLES_MAX * HANDLE_WORDS * 4 + IMAGE_SLOTS_MAX)) {
    this.buffer = buffer;
    this.#words = new Int32Array(buffer, 0, HANDLES_MAX * HANDLE_WORDS);
    this.#privileged = new Uint8Array(buffer, HANDLES_MAX * HANDLE_WORDS * 4);
  }

  fd(handle: number): number {
    return this.#words[handle * HANDLE_WORDS + FD]!;
  }
  slot(handle: number): ImageSlot {
    return this.#words[handle * HANDLE_WORDS + SLOT]!;
  }
  /** `HANDLE_*` bits. */
  kinds(handle: number): number {
    return this.#words[handle * HANDLE_WORDS + KINDS]!;
  }
  privileged(slot: ImageSlot): boolean {
    return this.#privileged[slot] !== 0;
  }
  setPrivileged(slot: ImageSlot, privileged: boolean): void {
    this.#privileged[slot] = privileged ? 1 : 0;
  }

  setKinds(handle: number, kinds: number): void {
    this.#words[handle * HANDLE_WORDS + KINDS] = kinds;
  }

  set(handle: number, fd: number, slot: ImageSlot): void {
    const at = handle * HANDLE_WORDS;
    this.#words[at + FD] = fd;
    this.#words[at + SLOT] = slot;
    this.#words[at + KINDS] = 0;
  }
}

/** Hands out handles; used by the owner of the namespace only. */
export class HandleAllocator {
  readonly table: HandleTable;
  readonly #free: number[] = [];
  readonly #open = new Set<number>();
  #next = 0;

  constructor(table: HandleTable) {
    this.table = table;
  }

  /** The new handle, or -1 when `HANDLES_MAX` are open. */
  allocate(fd: number, slot: ImageSlot): number {
    const handle = this.#free.pop() ?? this.#next;
    if (handle >= HANDLES_MAX) return -1;
    if (handle === this.#next) this.#next++;
    this.table.set(handle, fd, slot);
    this.#open.add(handle);
    return handle;
  }

  free(handle: number): void {
    assert(this.#open.delete(handle), `handle ${handle} is not open`);
    this.table.set(handle, -1, -1);
    this.#free.push(handle);
  }

  get size(): number {
    return this.#open.size;
  }

  get open(): Iterable<number> {
    return this.#open;
  }
}
