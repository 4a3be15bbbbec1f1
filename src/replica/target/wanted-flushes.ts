const POSTS = 0;
const ENDED = 1;
const HEADER_BYTES = 8;
const SEQUENCE_BYTES = 8;

/**
 * Which images of a stream are to be flushed, in shared memory: asked for by the thread that receives, done by the one that
 * flushes. However many are asked for while one is being done, the next does for all of them.
 */
export class WantedFlushes {
  readonly buffer: SharedArrayBuffer;
  readonly #words: Int32Array;
  /** By image, the last sync that was asked for. */
  readonly #sequences: BigInt64Array;

  constructor(buffer: SharedArrayBuffer) {
    this.buffer = buffer;
    this.#words = new Int32Array(buffer, 0, HEADER_BYTES / 4);
    this.#sequences = new BigInt64Array(buffer, HEADER_BYTES);
  }

  static forImages(count: number): WantedFlushes {
    return new WantedFlushes(new SharedArrayBuffer(HEADER_BYTES + count * SEQUENCE_BYTES));
  }

  /** After everything that the sync with this number covers has taken effect. */
  want(image: number, sequence: number): void {
    Atomics.store(this.#sequences, image, BigInt(sequence));
    this.#post();
  }

  /** The last one asked for of that image; 0: none. */
  wanted(image: number): number {
    return Number(Atomics.load(this.#sequences, image));
  }

  /** Nothing is to be flushed any more. */
  end(): void {
    Atomics.store(this.#words, ENDED, 1);
    this.#post();
  }

  get ended(): boolean {
    return Atomics.load(this.#words, ENDED) !== 0;
  }

  /** Changes with each call of `want` and `end`. */
  get posts(): number {
    return Atomics.load(this.#words, POSTS);
  }

  /** Sleeps until `posts` is not `seen` any more. */
  wait(seen: number): void {
    Atomics.wait(this.#words, POSTS, seen);
  }

  #post(): void {
    Atomics.add(this.#words, POSTS, 1);
    Atomics.notify(this.#words, POSTS);
  }
}
