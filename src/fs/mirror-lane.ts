import assert from 'node:assert/strict';
import type { RecordHead } from '../leaves/stream-record.js';
import type { Bytes } from '../leaves/units.js';
import { bytes, KiB, MiB } from '../leaves/units.js';
import type { ImageSlot } from './image-table.js';
import { PARTICIPANTS_MAX } from './image-table.js';
import { LANE_SYNCS_WORDS, LaneSyncs } from './lane-syncs.js';
import { SHUT_RDWR, shutdown } from './libc.js';
import { SharedLock } from './shared-lock.js';

/** Writes sent and not both made here and acknowledged. */
const ENTRIES_MAX = 2048;
/** Their payload, at most: the socket's buffer takes as much, so nobody waits for the network while sending. */
export const LANE_BYTES_MAX: Bytes = bytes(16 * MiB);
/** However slow the network. */
const LANE_BYTES_MIN: Bytes = bytes(256 * KiB);
/** Of the socket of a stream that has a lane. The kernel counts what it keeps beside the bytes as well. */
export const LANE_SEND_BUFFER: Bytes = bytes(4 * LANE_BYTES_MAX);
/** What payload may take of the socket's buffer, whose size is as the kernel tells it. */
const BUFFER_SHARE = 0.25;
/** With less there is no lane. */
export const LANE_SEND_BUFFER_MIN: Bytes = bytes(LANE_BYTES_MIN / BUFFER_SHARE);
/** Of that buffer, for a write: 2 KiB beside the payload are more than a record takes, and half of it is for those. */
const BUFFER_PER_WRITE: Bytes = bytes(4 * KiB);

// Words of the lane; those that different threads change are on cache lines of their own.
const LOCK = 0;
const STATE = 16;
/** Entries made, modulo 2^31. Changed under the lock. */
const TAIL = 32;
/** Entries that were acknowledged or given up, modulo 2^31. Changed by the stream's thread alone. */
const HEAD = 48;
const BYTES_UNDER_WAY = 64;
/** Bytes that may be under way; a single write always may. */
const WINDOW = 65;
/** The most that it may be, and how many writes may be under way: by the socket's buffer. */
const WINDOW_MAX = 66;
const WRITES_MAX = 67;
/** 1 + the entry with which the stream's thread went beyond that, until it is settled. That thread's alone. */
const BEYOND = 68;
/** What has been sent and acknowledged, modulo 2^32. */
const BYTES_SENT = 80;
const BYTES_ACKED = 96;
/** By participant: 1 + the entry whose write is being made here. */
const MAKING = 112;
const ENTRIES = MAKING + PARTICIPANTS_MAX;
const ENTRY_WORDS = 16;
const LANE_WORDS = ENTRIES + ENTRIES_MAX * ENTRY_WORDS;
const COUNT_MASK = 0x7fffffff;

/** The stream's own thread; the last number is the namespace owner's, and workers' are far lower. */
export const STREAM_PARTICIPANT = PARTICIPANTS_MAX - 2;

/** Sequence number of the last record, of any kind, on the stream; beside the words, as it exceeds them. */
const SEQUENCE_BYTES = 8;
/** Then the syncs. */
const SYNCS_AT = LANE_WORDS * 4 + SEQUENCE_BYTES;

const STATUS = 0;
const UNIQUE_LOW = 1;
const UNIQUE_HIGH = 2;
const FUSE_FD = 3;
const SLOT = 4;
const LENGTH = 5;
const RESULT = 6;
const OFFSET = 8; // a double
const ENTRY_SEQUENCE = 10; // a double

const FREE = 0;
const USED = 1;
const MADE = 2;
const ACKED = 4;
const LOST = 8;

/** The state is 0 before. */
const CLOSED = 1;

/** The result that says: the answer comes later, from the stream's thread. No system call returns it. */
export const ANSWERED_LATER = -1_000_001;

/** In place of a descriptor: whoever settles the flush behind the write answers. */
export const ANSWERED_BY_SYNC = -2;

/** One write as its lane needs it. `record` is where the record is made: the payload begins behind its head. */
export interface LaneRequest {
  readonly fuseFd: number;
  readonly words: Uint32Array;
  readonly head: RecordHead;
  readonly record: Uint8Array;
}

/** What a participant needs to use a lane; all of it can be posted. */
export interface LaneAnnouncement {
  readonly buffer: SharedArrayBuffer;
  /** Socket of the stream. Nobody sends on it once the lane is closed. */
  readonly fd: number;
  /** Seals what is sent; null: it is not sealed. */
  readonly key: Uint8Array | null;
  /** Number of the image within its group. */
  readonly image: number;
}

/** Where a write that was lost, or that failed, is marked. */
interface Marks {
  mark(offset: number, length: number): void;
}

/** Answers a write with what was made here: its length, or -errno. */
export type LaneAnswer = (fuseFd: number, uniqueLow: number, uniqueHigh: number, result: number) => void;

/**
 * The synchronous mirror without the replica thread. Threads that get guests' writes send them to the target, make them,
 * and do not wait; the stream's thread gets the acknowledgements. Whoever is the second to be done with a write answers
 * it: the writer, or the stream's thread.
 *
 * Invariants. Records leave in the order of their entries, under the lock. A write is sent only while no write that
 * overlaps it is being made here, so both sides see overlapping writes in one order. A write that was lost, or that
 * failed here, is marked dirty before it is answered. Once the lane is closed nothing more is sent.
 */
export class MirrorLane {
  readonly buffer: SharedArrayBuffer;
  readonly lock: SharedLock;
  readonly syncs: LaneSyncs;
  readonly #words: Int32Array;
  readonly #doubles: Float64Array;
  readonly #sequence: Float64Array;

  constructor(buffer = new SharedArrayBuffer(SYNCS_AT + LANE_SYNCS_WORDS * 4)) {
    this.buffer = buffer;
    this.#words = new Int32Array(buffer, 0, LANE_WORDS);
    this.#doubles = new Float64Array(buffer, 0, LANE_WORDS / 2);
    this.#sequence = new Float64Array(buffer, LANE_WORDS * 4, 1);
    this.lock = new SharedLock(this.#words, LOCK);
    this.syncs = new LaneSyncs(buffer, SYNCS_AT);
    Atomics.compareExchange(this.#words, WINDOW, 0, LANE_BYTES_MIN);
    Atomics.compareExchange(this.#words, WINDOW_MAX, 0, LANE_BYTES_MAX);
    Atomics.compareExchange(this.#words, WRITES_MAX, 0, ENTRIES_MAX);
  }

  /**
   * Before it is used: bounds what is under way by the buffer of the socket, so that nobody waits for the network while
   * sending. `sendBuffer`: as `setSendBuffer` tells it. False: it is too small for a lane.
   */
  fit(sendBuffer: number): boolean {
    if (sendBuffer < LANE_SEND_BUFFER_MIN) return false;
    const words = this.#words;
    Atomics.store(words, WINDOW_MAX, Math.min(LANE_BYTES_MAX, Math.floor(sendBuffer * BUFFER_SHARE)));
    Atomics.store(words, WRITES_MAX, Math.min(ENTRIES_MAX, Math.floor(sendBuffer / BUFFER_PER_WRITE)));
    return true;
  }

  get closed(): boolean {
    return Atomics.load(this.#words, STATE) === CLOSED;
  }

  /** Under the lock: the number of the next record on the stream. */
  nextSequence(): number {
    const next = this.#sequence[0]! + 1;
    this.#sequence[0] = next;
    return next;
  }

  /** How much may be under way, in bytes: whoever wants the lane drained waits so long. */
  set window(wanted: number) {
    const most = Atomics.load(this.#words, WINDOW_MAX);
    const window = Math.max(LANE_BYTES_MIN, Math.min(Math.floor(wanted), most));
    Atomics.store(this.#words, WINDOW, window);
  }

  /** Writes whose outcome at the target is not known. */
  get underWay(): number {
    return (Atomics.load(this.#words, TAIL) - Atomics.load(this.#words, HEAD)) & COUNT_MASK;
  }

  /** Changes whenever something is acknowledged. */
  get acknowledged(): number {
    return Atomics.load(this.#words, HEAD);
  }

  /** Payload, modulo 2^32. */
  get bytesSent(): number {
    return Atomics.load(this.#words, BYTES_SENT) >>> 0;
  }

  get bytesAcked(): number {
    return Atomics.load(this.#words, BYTES_ACKED) >>> 0;
  }

  /** From here on nothing is sent, but by a thread that holds the lock longer than `waitMs`. */
  close(waitMs?: number): void {
    const locked = this.lock.acquire(waitMs);
    Atomics.store(this.#words, STATE, CLOSED);
    if (locked) this.lock.release();
  }

  /** Under the lock, after sending has failed: as `close`, and the stream's thread notices. */
  breakOff(fd: number): void {
    Atomics.store(this.#words, STATE, CLOSED);
    shutdown(fd, SHUT_RDWR);
  }

  /** Under the lock, for a write of `length` bytes: its entry, or -1 when it has to go another way. */
  begin(
    participant: number,
    slot: ImageSlot,
    offset: number,
    length: number,
    fuseFd: number,
    uniqueLow: number,
    uniqueHigh: number,
  ): number {
    const words = this.#words;
    if (Atomics.load(words, STATE) === CLOSED) return -1;
    const underWay = Atomics.load(words, BYTES_UNDER_WAY);
    const beyond =
      (underWay > 0 && underWay + length > Atomics.load(words, WINDOW)) ||
      this.underWay >= Atomics.load(words, WRITES_MAX);
    // Its writes wait for their turn: small ones of the others would keep a large one out for ever.
    if (beyond && (participant !== STREAM_PARTICIPANT || words[BEYOND] !== 0)) return -1;
    const tail = words[TAIL]!;
    const entry = tail % ENTRIES_MAX;
    const at = ENTRIES + entry * ENTRY_WORDS;
    if (Atomics.load(words, at + STATUS) !== FREE || this.#overlaps(slot, offset, length)) return -1;
    words[at + UNIQUE_LOW] = uniqueLow;
    words[at + UNIQUE_HIGH] = uniqueHigh;
    words[at + FUSE_FD] = fuseFd;
    words[at + SLOT] = slot;
    words[at + LENGTH] = length;
    words[at + RESULT] = 0;
    this.#doubles[(at + OFFSET) >>> 1] = offset;
    this.#doubles[(at + ENTRY_SEQUENCE) >>> 1] = this.nextSequence();
    if (beyond) words[BEYOND] = entry + 1;
    Atomics.store(words, at + STATUS, USED);
    Atomics.store(words, MAKING + participant, entry + 1);
    Atomics.add(words, BYTES_UNDER_WAY, length);
    Atomics.add(words, BYTES_SENT, length);
    Atomics.store(words, TAIL, (tail + 1) & COUNT_MASK);
    return entry;
  }

  sequenceOf(entry: number): number {
    return this.#doubles[(ENTRIES + entry * ENTRY_WORDS + ENTRY_SEQUENCE) >>> 1]!;
  }

  /** The write was made here, or failed. True: its outcome at the target is known, so the caller answers. */
  made(participant: number, entry: number, result: number, marks: Marks): boolean {
    const words = this.#words;
    const at = ENTRIES + entry * ENTRY_WORDS;
    const length = words[at + LENGTH]!;
    const offset = this.#doubles[(at + OFFSET) >>> 1]!;
    if (result !== length) marks.mark(offset, length);
    words[at + RESULT] = result;
    Atomics.store(words, MAKING + participant, 0);
    const before = Atomics.or(words, at + STATUS, MADE);
    if ((before & ACKED) === 0) return false;
    if ((before & LOST) !== 0) marks.mark(offset, length);
    Atomics.store(words, at + STATUS, FREE);
    return true;
  }

  /**
   * For the stream's thread: the target has everything up to `sequence`, or, when `lost`, will not say so any more.
   * `answer` is called for each write that was made here before.
   */
  settle(sequence: number, lost: boolean, marksOf: (slot: ImageSlot) => Marks, answer: LaneAnswer): void {
    const words = this.#words;
    const tail = Atomics.load(words, TAIL);
    let head = words[HEAD]!;
    while (head !== tail) {
      const at = ENTRIES + (head % ENTRIES_MAX) * ENTRY_WORDS;
      if (this.#doubles[(at + ENTRY_SEQUENCE) >>> 1]! > sequence) break;
      const length = words[at + LENGTH]!;
      const uniqueLow = words[at + UNIQUE_LOW]!;
      const uniqueHigh = words[at + UNIQUE_HIGH]!;
      const fuseFd = words[at + FUSE_FD]!;
      Atomics.sub(words, BYTES_UNDER_WAY, length);
      if (!lost) Atomics.add(words, BYTES_ACKED, length);
      const slot = words[at + SLOT]!;
      const offset = this.#doubles[(at + OFFSET) >>> 1]!;
      const before = Atomics.or(words, at + STATUS, lost ? ACKED | LOST : ACKED);
      assert((before & USED) !== 0 && (before & ACKED) === 0, 'settled twice');
      if ((before & MADE) !== 0) {
        if (lost) marksOf(slot).mark(offset, length);
        const result = words[at + RESULT]!;
        Atomics.store(words, at + STATUS, FREE);
        if (fuseFd !== ANSWERED_BY_SYNC) answer(fuseFd, uniqueLow, uniqueHigh, result);
      }
      if (words[BEYOND] === (head % ENTRIES_MAX) + 1) words[BEYOND] = 0;
      head = (head + 1) & COUNT_MASK;
      Atomics.store(words, HEAD, head);
    }
  }

  #overlaps(slot: ImageSlot, offset: number, length: number): boolean {
    const words = this.#words;
    for (let participant = 0; participant < PARTICIPANTS_MAX; participant++) {
      const making = Atomics.load(words, MAKING + participant);
      if (making === 0) continue;
      const at = ENTRIES + (making - 1) * ENTRY_WORDS;
      const other = this.#doubles[(at + OFFSET) >>> 1]!;
      if (words[at + SLOT] === slot && other < offset + length && offset < other + words[at + LENGTH]!)
        return true;
    }
    return false;
  }
}
