import type { ImageSlot } from '../image-table.js';
import { PARTICIPANTS_MAX } from '../image-table.js';

const WORDS = 16; // one cache line a participant
const SEQUENCE = 0; // odd while in a call
const SLOT = 1;
const UNIQUE_LOW = 2;
const UNIQUE_HIGH = 3;
const OPCODE = 4;
const CALLER = 5;
const FUSE_FD = 6;
/** Not 0: one worker too many; it ends after its next request. */
const RETIRED = 7;
/** Instead of a sequence: another thread serves in its place; it ends when its call returns. */
const REPLACED = -1;
const SEQUENCE_MASK = 0x3fffffff;
const CALLS_MASK = SEQUENCE_MASK >> 1;

const FLUSHES = PARTICIPANTS_MAX * WORDS;
const FLUSHES_MAX = FLUSHES + 1;
const REQUEST_UNIQUE_WORD = 2;
const REQUEST_CALLER_WORD = 8;

/** A call on a backing file that is under way. */
export interface Activity {
  /** Tells one call of a participant from the next. */
  readonly sequence: number;
  readonly slot: ImageSlot;
  readonly unique: bigint;
  readonly opcode: number;
  /** Thread that made the request, 0 if it is in no process namespace we see. */
  readonly caller: number;
  readonly fuseFd: number;
}

/** What each thread that performs I/O on backing files is at, in shared memory: threads write, the main thread looks. */
export class ActivityTable {
  readonly buffer: SharedArrayBuffer;
  readonly #words: Int32Array;

  constructor(buffer = new SharedArrayBuffer((PARTICIPANTS_MAX + 1) * WORDS * 4)) {
    this.buffer = buffer;
    this.#words = new Int32Array(buffer);
  }

  /** Undefined: in no call. Two looks that give the same sequence have seen the same call. */
  look(participant: number): Activity | undefined {
    const at = participant * WORDS;
    const sequence = Atomics.load(this.#words, at + SEQUENCE);
    if ((sequence & 1) === 0) return undefined;
    const [low, high] = [this.#words[at + UNIQUE_LOW]! >>> 0, this.#words[at + UNIQUE_HIGH]! >>> 0];
    const activity = {
      sequence,
      slot: this.#words[at + SLOT]!,
      unique: (BigInt(high) << 32n) | BigInt(low),
      opcode: this.#words[at + OPCODE]!,
      caller: this.#words[at + CALLER]!,
      fuseFd: this.#words[at + FUSE_FD]!,
    };
    return Atomics.load(this.#words, at + SEQUENCE) === sequence ? activity : undefined;
  }

  /** How many calls it has begun since it had begun `calls`, and the new count. Not of one that has been replaced. */
  callsSince(participant: number, calls: number): { readonly begun: number; readonly calls: number } {
    const now = ((Atomics.load(this.#words, participant * WORDS + SEQUENCE) + 1) >> 1) & CALLS_MASK;
    return { begun: (now - calls) & CALLS_MASK, calls: now };
  }

  /** Takes the thread out of service from the end of that call on; false when the call has ended meanwhile. */
  replace(participant: number, sequence: number): boolean {
    const at = participant * WORDS + SEQUENCE;
    return Atomics.compareExchange(this.#words, at, sequence, REPLACED) === sequence;
  }

  /** Asks a worker to end after its next request. */
  retire(participant: number): void {
    Atomics.store(this.#words, participant * WORDS + RETIRED, 1);
  }

  /** For the next thread with that number. */
  reset(participant: number): void {
    Atomics.store(this.#words, participant * WORDS + SEQUENCE, 0);
    Atomics.store(this.#words, participant * WORDS + RETIRED, 0);
  }

  /** How many workers may be in calls that may take seconds. */
  limitFlushes(count: number): void {
    Atomics.store(this.#words, FLUSHES_MAX, count);
  }
}

/** One thread's line of the table. Costs no system call and no allocation. */
export class ActivityMark {
  readonly #words: Int32Array;
  readonly #at: number;
  #sequence = 0;

  constructor(buffer: SharedArrayBuffer, participant: number) {
    this.#words = new Int32Array(buffer);
    this.#at = participant * WORDS;
  }

  /** Before a call for the request whose words are given. */
  begin(slot: ImageSlot, request: Uint32Array, fuseFd: number): void {
    const words = this.#words;
    const at = this.#at;
    words[at + SLOT] = slot;
    words[at + OPCODE] = request[1]!;
    words[at + UNIQUE_LOW] = request[REQUEST_UNIQUE_WORD]!;
    words[at + UNIQUE_HIGH] = request[REQUEST_UNIQUE_WORD + 1]!;
    words[at + CALLER] = request[REQUEST_CALLER_WORD]!;
    words[at + FUSE_FD] = fuseFd;
    this.#sequence = (this.#sequence + 1) & SEQUENCE_MASK;
    Atomics.store(words, at + SEQUENCE, this.#sequence);
  }

  /** After it; false: this thread has been replaced and must end without taking another request. */
  end(): boolean {
    const next = (this.#sequence + 1) & SEQUENCE_MASK;
    const found = Atomics.compareExchange(this.#words, this.#at + SEQUENCE, this.#sequence, next);
    this.#sequence = next;
    return found !== REPLACED;
  }

  /** It is to end; never in the middle of a request. */
  get retired(): boolean {
    return this.#words[this.#at + RETIRED] !== 0;
  }

  /**
   * Admits as many threads at a time as `limitFlushes` says to calls that may take seconds; each calls `leaveFlush`
   * afterwards.
   */
  enterFlush(): boolean {
    if (Atomics.add(this.#words, FLUSHES, 1) < this.#words[FLUSHES_MAX]!) return true;
    this.leaveFlush();
    return false;
  }

  leaveFlush(): void {
    Atomics.sub(this.#words, FLUSHES, 1);
  }
}
