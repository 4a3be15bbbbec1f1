import { createBackingCalls } from '../../fs/backing-calls.js';
import type { DirtyBitmap } from '../../fs/dirty-bitmap.js';
import type { ImageSlot } from '../../fs/image-table.js';
import { alignedBytes } from '../../fs/kernel/aligned-memory.js';
import type { MirrorLane } from '../../fs/mirror-lane.js';
import { STREAM_PARTICIPANT } from '../../fs/mirror-lane.js';
import { FOR_EVER, sendWhole } from '../../fs/stream-socket.js';
import type { RecordSeal } from '../../leaves/record-seal.js';
import {
  RECORD_HEAD_BYTES,
  RECORD_KIND,
  RECORD_PAYLOAD_BYTES_MAX,
  RecordHead,
} from '../../leaves/stream-record.js';
import type { LaneWrite } from '../stream-messages.js';

/** In place of a descriptor of the kernel's: the write is answered where it came from, by its number. */
export const BY_NUMBER = -1;

/** Writes that came to the replica thread, made by the stream's thread as by any participant of the lane. */
export class StreamWriter {
  readonly #fd: number;
  readonly #lane: MirrorLane;
  readonly #seal: RecordSeal;
  readonly #marksOf: (slot: ImageSlot) => DirtyBitmap;
  readonly #calls = createBackingCalls();
  readonly #record = alignedBytes(RECORD_HEAD_BYTES + RECORD_PAYLOAD_BYTES_MAX, RECORD_HEAD_BYTES);
  readonly #head = new RecordHead(this.#record.buffer, this.#record.byteOffset);
  /** In the order they came. */
  readonly #waiting: LaneWrite[] = [];

  constructor(fd: number, seal: RecordSeal, lane: MirrorLane, marksOf: (slot: ImageSlot) => DirtyBitmap) {
    this.#fd = fd;
    this.#seal = seal;
    this.#lane = lane;
    this.#marksOf = marksOf;
  }

  get idle(): boolean {
    return this.#waiting.length === 0;
  }

  add(write: LaneWrite): void {
    this.#waiting.push(write);
  }

  /** Makes what the lane takes now; false: it does not take the next one yet. */
  work(): boolean {
    for (let next = this.#waiting[0]; next; next = this.#waiting[0]) {
      const { slot, fd, offset, payload } = next;
      const entry = this.#send(next);
      if (entry < 0) return false;
      this.#waiting.shift();
      const made = this.#calls.pwrite(fd, this.#record.subarray(RECORD_HEAD_BYTES), payload.length, offset);
      // Acknowledgements are taken in by this thread, later.
      this.#lane.made(STREAM_PARTICIPANT, entry, made, this.#marksOf(slot));
    }
    return true;
  }

  /** The lane is closed: what has waited is made and marked. */
  finish(written: (id: number, result: number) => void): void {
    for (const { id, slot, fd, offset, payload } of this.#waiting.splice(0)) {
      this.#record.set(payload, RECORD_HEAD_BYTES);
      const made = this.#calls.pwrite(fd, this.#record.subarray(RECORD_HEAD_BYTES), payload.length, offset);
      this.#marksOf(slot).mark(offset, payload.length);
      written(id, made);
    }
  }

  #send({ id, slot, image, offset, payload }: LaneWrite): number {
    const lane = this.#lane;
    lane.lock.acquire();
    try {
      const entry = lane.begin(STREAM_PARTICIPANT, slot, offset, payload.length, BY_NUMBER, id, 0);
      if (entry < 0) return entry;
      const sequence = lane.sequenceOf(entry);
      this.#record.set(payload, RECORD_HEAD_BYTES);
      const whole = this.#head.put(RECORD_KIND.mirror, image, offset, payload.length, sequence);
      const sealed = this.#seal.seal(this.#record.subarray(0, whole), sequence - 1);
      // Sealed in place, or a copy: the payload stays as it is.
      if (!sendWhole(this.#fd, sealed, FOR_EVER)) lane.breakOff(this.#fd);
      return entry;
    } finally {
      lane.lock.release();
    }
  }
}
