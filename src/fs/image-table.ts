/**
 * The tables that all threads of the daemon share. Plain integers in shared memory, one writer per field.
 */
import assert from 'node:assert/strict';

/** How writes to an image are served. */
export const ImageMode = {
  /** In the thread that got the request; nothing is tracked. */
  idle: 0,
  /** In the thread that got the request; dirty bits are marked after the write. */
  tracked: 1,
  /** Handed to the replica thread, which orders, delays, mirrors and replies. */
  routed: 2,
  /** Refused with EROFS: another host owns the image, or it is an unfinished replica. */
  fenced: 3,
  /** A write is sent to the target and made by the thread that got it (`MirrorLane`); all else as `routed`. */
  mirrored: 4,
} as const;
export type ImageMode = (typeof ImageMode)[keyof typeof ImageMode];

/** Index of an image in the shared table. -1 for handles of anything that is not a regular file. */
export type ImageSlot = number;

export const IMAGE_SLOTS_MAX = 65_536;
const SLOT_WORDS = 4;
const MODE = 0;
const EPOCH = 1;
/** Set while reads through the mount must not be cached by the kernel (an image that is being received). */
const UNCACHED = 2;
/** `HandOver` bits. */
const HAND_OVER = 3;

/** What data workers do not perform themselves, because calls on the backing file were seen not to return. */
export const HandOver = {
  /** Reads, writes and what else should return at once. */
  io: 1,
  /** Flushes and allocations, which may take seconds. */
  flush: 2,
} as const;

/** One slot per open or pinned regular file. The owner of the namespace allocates slots; the replica thread sets modes. */
export class ImageTable {
  readonly buffer: SharedArrayBuffer;
  readonly #words: Int32Array;

  constructor(buffer = new SharedArrayBuffer(IMAGE_SLOTS_MAX * SLOT_WORDS * 4)) {
    this.buffer = buffer;
    this.#words = new Int32Array(buffer);
  }

  mode(slot: ImageSlot): ImageMode {
    return Atomics.load(this.#words, slot * SLOT_WORDS + MODE) as ImageMode;
  }

  setMode(slot: ImageSlot, mode: ImageMode): void {
    Atomics.store(this.#words, slot * SLOT_WORDS + MODE, mode);
  }

  /** Version of the bitmap that `tracked` writers must mark; a new one is announced before it is set here. */
  epoch(slot: ImageSlot): number {
    return Atomics.load(this.#words, slot * SLOT_WORDS + EPOCH);
  }

  setEpoch(slot: ImageSlot, epoch: number): void {
    Atomics.store(this.#words, slot * SLOT_WORDS + EPOCH, epoch);
  }

  uncached(slot: ImageSlot): boolean {
    return Atomics.load(this.#words, slot * SLOT_WORDS + UNCACHED) !== 0;
  }

  setUncached(slot: ImageSlot, uncached: boolean): void {
    Atomics.store(this.#words, slot * SLOT_WORDS + UNCACHED, uncached ? 1 : 0);
  }

  /** `HandOver` bits; written by the main thread alone. */
  handOver(slot: ImageSlot): number {
    return Atomics.load(this.#words, slot * SLOT_WORDS + HAND_OVER);
  }

  setHandOver(slot: ImageSlot, bits: number): void {
    Atomics.store(this.#words, slot * SLOT_WORDS + HAND_OVER, bits);
  }
}

export const PARTICIPANTS_MAX = 128;
const PARTICIPANT_WORDS = 16; // one cache line each
const COUNT = 0;
const INSIDE_SLOT = 1;

/**
 * Grace periods, as in RCU: a thread that serves I/O is *inside* an image between `enter` and `exit`; whoever has
 * changed the mode of images waits until every thread that was inside one of them has left, and then knows that no
 * write decided under the old mode is still under way. `enter` happens before the mode is read (sequentially
 * consistent atomics). A call that does not return holds up the changes of its own image only.
 */
export class GraceCounters {
  readonly buffer: SharedArrayBuffer;
  readonly #words: Int32Array;

  constructor(buffer = new SharedArrayBuffer(PARTICIPANTS_MAX * PARTICIPANT_WORDS * 4)) {
    this.buffer = buffer;
    this.#words = new Int32Array(buffer);
  }

  enter(participant: number, slot: ImageSlot): void {
    // Before the count: whoever sees the count odd, and still the same after reading the slot, has read its slot.
    Atomics.store(this.#words, participant * PARTICIPANT_WORDS + INSIDE_SLOT, slot);
    const before = Atomics.add(this.#words, participant * PARTICIPANT_WORDS + COUNT, 1);
    assert((before & 1) === 0, 'entered twice');
  }

  exit(participant: number): void {
    const before = Atomics.add(this.#words, participant * PARTICIPANT_WORDS + COUNT, 1);
    assert((before & 1) === 1, 'left without entering');
  }

  /**
   * Resolves once every thread that is inside one of the images now has left. `turn` yields between looks (injected
   * for the model).
   */
  async elapsed(slots: readonly ImageSlot[], turn: () => Promise<void>, signal?: AbortSignal): Promise<void> {
    const inside: { word: number; seen: number }[] = [];
    for (let word = COUNT; word < this.#words.length; word += PARTICIPANT_WORDS) {
      const seen = Atomics.load(this.#words, word);
      const slot = Atomics.load(this.#words, word + INSIDE_SLOT);
      if ((seen & 1) === 1 && slots.includes(slot)) inside.push({ word, seen });
    }
    for (const { word, seen } of inside) {
      while (Atomics.load(this.#words, word) === seen) {
        signal?.throwIfAborted();
        await turn();
      }
    }
  }
}
