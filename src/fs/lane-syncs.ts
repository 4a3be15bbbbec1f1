/** Flushes sent and not both done here and by the target. */
const ENTRIES_MAX = 64;
const ENTRY_WORDS = 16;
/** Words of shared memory. */
export const LANE_SYNCS_WORDS = ENTRIES_MAX * ENTRY_WORDS;

const STATUS = 0;
const UNIQUE_LOW = 1;
const UNIQUE_HIGH = 2;
const FUSE_FD = 3;
const IMAGE = 4;
const RESULT = 5;
const IS_WRITE = 6;
const SEQUENCE = 8; // a double

const FREE = 0;
const USED = 1;
const MADE = 2;
const SETTLED = 4;

/** Answers a flush, or a durable write (`isWrite`), with what came of it here: 0, its length, or -errno. */
export type SyncAnswer = (
  fuseFd: number,
  uniqueLow: number,
  uniqueHigh: number,
  result: number,
  isWrite: boolean,
) => void;

/**
 * The flushes of a lane: done by the target while the thread that got one does it here. Whoever is second answers. They are
 * apart from the writes, which are acknowledged in order, because a disk takes its time.
 */
export class LaneSyncs {
  readonly #words: Int32Array;
  readonly #doubles: Float64Array;

  /** Over `LANE_SYNCS_WORDS` words at `byteOffset`, zeroes at first. */
  constructor(buffer: SharedArrayBuffer, byteOffset: number) {
    this.#words = new Int32Array(buffer, byteOffset, LANE_SYNCS_WORDS);
    this.#doubles = new Float64Array(buffer, byteOffset, LANE_SYNCS_WORDS / 2);
  }

  /** Under the lane's lock: whether `begin` would have room. */
  get full(): boolean {
    return this.#free() < 0;
  }

  /** Under the lane's lock, before its record `sequence` leaves: the entry, or -1 when there is no room. */
  begin(
    image: number,
    sequence: number,
    fuseFd: number,
    uniqueLow: number,
    uniqueHigh: number,
    isWrite: boolean,
  ): number {
    const at = this.#free();
    if (at < 0) return -1;
    const words = this.#words;
    words[at + UNIQUE_LOW] = uniqueLow;
    words[at + UNIQUE_HIGH] = uniqueHigh;
    words[at + FUSE_FD] = fuseFd;
    words[at + IMAGE] = image;
    words[at + RESULT] = 0;
    words[at + IS_WRITE] = Number(isWrite);
    this.#doubles[(at + SEQUENCE) >>> 1] = sequence;
    Atomics.store(words, at + STATUS, USED);
    return at / ENTRY_WORDS;
  }

  /** It was done here, or failed. True: its outcome at the target is known, so the caller answers. */
  made(entry: number, result: number): boolean {
    const at = entry * ENTRY_WORDS;
    this.#words[at + RESULT] = result;
    if ((Atomics.or(this.#words, at + STATUS, MADE) & SETTLED) === 0) return false;
    Atomics.store(this.#words, at + STATUS, FREE);
    return true;
  }

  /** For the stream's thread: the target has done those of `image` up to `sequence`. */
  settle(image: number, sequence: number, answer: SyncAnswer): void {
    this.#settle(
      (at) => this.#words[at + IMAGE] === image && this.#doubles[(at + SEQUENCE) >>> 1]! <= sequence,
      answer,
    );
  }

  /**
   * For the stream's thread, once the lane is closed and its writes are settled: the target will not say any more what it
   * has done, so what counts is that they are done here.
   */
  lose(answer: SyncAnswer): void {
    this.#settle(() => true, answer);
  }

  /** Sequence number of the one that the target has been at for the longest; 0: of none. */
  get oldest(): number {
    let oldest = 0;
    for (let at = 0; at < LANE_SYNCS_WORDS; at += ENTRY_WORDS) {
      if (!this.#isOpen(at)) continue;
      const sequence = this.#doubles[(at + SEQUENCE) >>> 1]!;
      if (oldest === 0 || sequence < oldest) oldest = sequence;
    }
    return oldest;
  }

  /** An entry is used again only after it was settled, so what `settled` looks at stays. */
  #settle(settled: (at: number) => boolean, answer: SyncAnswer): void {
    const words = this.#words;
    for (let at = 0; at < LANE_SYNCS_WORDS; at += ENTRY_WORDS) {
      if (!this.#isOpen(at) || !settled(at)) continue;
      const fuseFd = words[at + FUSE_FD]!;
      const [low, high] = [words[at + UNIQUE_LOW]!, words[at + UNIQUE_HIGH]!];
      const isWrite = words[at + IS_WRITE] !== 0;
      if ((Atomics.or(words, at + STATUS, SETTLED) & MADE) === 0) continue;
      const result = words[at + RESULT]!;
      Atomics.store(words, at + STATUS, FREE);
      answer(fuseFd, low, high, result, isWrite);
    }
  }

  #isOpen(at: number): boolean {
    return (Atomics.load(this.#words, at + STATUS) & (USED | SETTLED)) === USED;
  }

  #free(): number {
    for (let at = 0; at < LANE_SYNCS_WORDS; at += ENTRY_WORDS)
      if (Atomics.load(this.#words, at + STATUS) === FREE) return at;
    return -1;
  }
}
