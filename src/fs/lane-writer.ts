import { RecordSeal } from '../leaves/record-seal.js';
import { RECORD_KIND } from '../leaves/stream-record.js';
import type { BackingCalls } from './backing-calls.js';
import type { DirtyBitmap } from './dirty-bitmap.js';
import type { ImageSlot } from './image-table.js';
import type { LaneAnnouncement, LaneRequest } from './mirror-lane.js';
import { ANSWERED_BY_SYNC, ANSWERED_LATER, MirrorLane } from './mirror-lane.js';
import { sendWhole } from './stream-socket.js';
import type { WrittenBlocks } from './written-blocks.js';

const UNIQUE_LOW_WORD = 2;
const UNIQUE_HIGH_WORD = 3;
/** A record that has begun to leave must leave whole: what the network does not take in this time breaks the stream. */
const SEND_WAIT_MS = 250;

/** A flush that the target has been sent, with the write before it if that is to be durable. */
export interface BegunSync {
  /** Of that write: bytes, or -errno; 0 without one. */
  readonly written: number;
  /**
   * To be called once, with what the guest is to be told when the target has flushed as well. What it gives is answered;
   * `ANSWERED_LATER`: by whoever hears of the target.
   */
  readonly made: (result: number) => number;
}

/** How one participant writes to one image, and flushes it, over a lane. */
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
   * has to go another way. `whole`: see `BackingCalls`.
   */
  write(
    slot: ImageSlot,
    fd: number,
    data: Uint8Array,
    length: number,
    offset: number,
    request: LaneRequest,
    whole: boolean,
  ): number | undefined {
    const { lock } = this.#lane;
    let entry = -1;
    lock.acquire();
    try {
      entry = this.#sendWrite(slot, length, offset, request, request.fuseFd);
    } finally {
      lock.release();
    }
    if (entry < 0) return undefined;
    const made = this.#calls.pwrite(fd, data, length, offset, whole);
    this.#written.note(offset, made);
    return this.#lane.made(this.#participant, entry, made, this.#bitmap) ? made : ANSWERED_LATER;
  }

  /** As `write`, with a flush behind it that is answered in its place; the caller flushes here. */
  writeDurably(
    slot: ImageSlot,
    fd: number,
    data: Uint8Array,
    length: number,
    offset: number,
    request: LaneRequest,
    whole: boolean,
  ): BegunSync | undefined {
    const { lock, syncs } = this.#lane;
    let entry = -1;
    let sync = -1;
    lock.acquire();
    try {
      if (!syncs.full) entry = this.#sendWrite(slot, length, offset, request, ANSWERED_BY_SYNC);
      if (entry >= 0) sync = this.#sendSync(request, true);
    } finally {
      lock.release();
    }
    if (entry < 0) return undefined;
    const written = this.#calls.pwrite(fd, data, length, offset, whole);
    this.#written.note(offset, written);
    this.#lane.made(this.#participant, entry, written, this.#bitmap);
    return this.#begun(sync, written);
  }

  /** Has the target flush everything that it was sent before; the caller flushes here. Undefined as `write`. */
  sync(request: LaneRequest): BegunSync | undefined {
    const { lock } = this.#lane;
    let sync = -1;
    lock.acquire();
    try {
      if (!this.#lane.closed) sync = this.#sendSync(request, false);
    } finally {
      lock.release();
    }
    return sync < 0 ? undefined : this.#begun(sync, 0);
  }

  #begun(sync: number, written: number): BegunSync {
    const made = (result: number): number => (this.#lane.syncs.made(sync, result) ? result : ANSWERED_LATER);
    return { written, made };
  }

  /** Under the lock: the entry, or -1. */
  #sendWrite(
    slot: ImageSlot,
    length: number,
    offset: number,
    { words, head, record }: LaneRequest,
    fuseFd: number,
  ): number {
    const lane = this.#lane;
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
    this.#send(record.subarray(0, whole), sequence);
    return entry;
  }

  /** Under the lock: the entry of the sync, or -1. */
  #sendSync({ words, fuseFd, head, record }: LaneRequest, isWrite: boolean): number {
    const { syncs } = this.#lane;
    if (syncs.full) return -1;
    const sequence = this.#lane.nextSequence();
    const sync = syncs.begin(
      this.#image,
      sequence,
      fuseFd,
      words[UNIQUE_LOW_WORD]!,
      words[UNIQUE_HIGH_WORD]!,
      isWrite,
    );
    const whole = head.put(RECORD_KIND.sync, this.#image, 0, 0, sequence);
    this.#send(record.subarray(0, whole), sequence);
    return sync;
  }

  #send(record: Uint8Array, sequence: number): void {
    const sealed = this.#seal.seal(record, sequence - 1);
    if (!sendWhole(this.#fd, sealed, SEND_WAIT_MS)) this.#lane.breakOff(this.#fd);
  }
}
