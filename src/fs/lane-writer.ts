import { RecordSeal } from '../leaves/record-seal.js';
import { RECORD_KIND } from '../leaves/stream-record.js';
import type { BackingCalls } from './backing-calls.js';
import type { DirtyBitmap } from './dirty-bitmap.js';
import type { ImageSlot } from './image-table.js';
import type { LaneAnnouncement, LaneRequest } from './mirror-lane.js';
import { ANSWERED_LATER, MirrorLane } from './mirror-lane.js';
import { sendWhole } from './stream-socket.js';
import type { WrittenBlocks } from './written-blocks.js';

const UNIQUE_LOW_WORD = 2;
const UNIQUE_HIGH_WORD = 3;
/** A record that has begun to leave must leave whole: what the network does not take in this time breaks the stream. */
const SEND_WAIT_MS = 250;

/** How one participant writes to one image over a lane. */
export class LaneWriter {
  readonly #lane: MirrorLane;
  readonly #fd: number;
  readonly #image: number;
  readonly #seal: RecordSeal;
  readonly #participant: number;
  readonly #calls: BackingCalls;
  readonly #bitmap: DirtyBitmap;
  readonly #written: WrittenBlocks;

  constructor(
    { buffer, fd, image, key }: LaneAnnouncement,
    participant: number,
    calls: BackingCalls,
    bitmap: DirtyBitmap,
    written: WrittenBlocks,
  ) {
    this.#lane = new MirrorLane(buffer);
    this.#fd = fd;
    this.#image = image;
    this.#seal = new RecordSeal(key);
    this.#participant = participant;
    this.#calls = calls;
    this.#bitmap = bitmap;
    this.#written = written;
  }

  /**
   * Sends the write and makes it; the record is made in front of the payload, over the request's header. What the write
   * is to be answered with; `ANSWERED_LATER`: whoever gets the acknowledgement answers. Undefined: nothing was done, it
   * has to go another way.
   */
  write(
    slot: ImageSlot,
    fd: number,
    data: Uint8Array,
    length: number,
    offset: number,
    request: LaneRequest,
  ): number | undefined {
    const entry = this.#send(slot, length, offset, request);
    if (entry < 0) return undefined;
    const made = this.#calls.pwrite(fd, data, length, offset);
    this.#written.note(offset, made);
    return this.#lane.made(this.#participant, entry, made, this.#bitmap) ? made : ANSWERED_LATER;
  }

  /** The entry, or -1. */
  #send(slot: ImageSlot, length: number, offset: number, request: LaneRequest): number {
    const lane = this.#lane;
    const { words, fuseFd, head, record } = request;
    lane.lock.acquire();
    try {
      const entry = lane.begin(
        this.#participant,
        slot,
        offset,
        length,
        fuseFd,
        words[UNIQUE_LOW_WORD]!,
        words[UNIQUE_HIGH_WORD]!,
      );
      if (entry < 0) return entry;
      const sequence = lane.sequenceOf(entry);
      const whole = head.put(RECORD_KIND.mirror, this.#image, offset, length, sequence);
      const sealed = this.#seal.seal(record.subarray(0, whole), sequence - 1);
      if (!sendWhole(this.#fd, sealed, SEND_WAIT_MS)) lane.breakOff(this.#fd);
      return entry;
    } finally {
      lane.lock.release();
    }
  }
}
