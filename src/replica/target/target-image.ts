import { createHash } from 'node:crypto';
import type { BackingCalls } from '../../fs/backing-calls.js';
import type { PinnedImage } from '../../fs/image-store.js';
import type { ImageSlot } from '../../fs/image-table.js';
import type { RoutedRequest } from '../../fs/participant.js';
import type { MigrateFsError } from '../../leaves/errors.js';
import { staggeredBuffer } from '../../leaves/staggered-buffer.js';
import type { Bytes, Generation } from '../../leaves/units.js';
import { bytes, KiB } from '../../leaves/units.js';
import type { ExtentLock } from '../extent-locks.js';
import { ExtentLocks, TO_THE_END } from '../extent-locks.js';
import type { PayloadChunks } from '../wire/payload.js';
import { payloadLength } from '../wire/payload.js';
import { BackingFile, backingError } from './backing-file.js';
import type { ReplyRouted } from './held-requests.js';
import { performRouted } from './perform-routed.js';

/** A write up to this size that nothing overlaps is done where it is received: handing it on would cost more. */
const WRITE_NOW_BYTES_MAX: Bytes = bytes(64 * KiB);
/** Of an image that is read at once for its digest. */
export const DIGEST_CHUNK: Bytes = bytes(512 * KiB);
const ZEROES = Buffer.alloc(DIGEST_CHUNK);

/** Done when it returns, or when the promise it returns settles. */
type Work = () => unknown;

/** `failure` is absent when the change took effect. */
export type Applied = (failure?: MigrateFsError) => void;

interface RangeDigest {
  readonly sha256: Uint8Array;
  readonly zero: boolean;
}

/** Who decides what a guest's change to a replica gets. */
type RouteRequest = (image: TargetImage, request: RoutedRequest, reply: ReplyRouted) => void;

/**
 * One replica being received. Changes take effect in the order of the calls where they overlap, whatever is done
 * asynchronously; a size change overlaps everything.
 */
export class TargetImage {
  readonly name: string;
  readonly slot: ImageSlot;
  /** Bytes the source allocated when it began. */
  readonly allocated: Bytes;
  /** Generation of the source's ownership, which the target's must exceed. */
  readonly generation: Generation;
  readonly file: BackingFile;
  readonly #calls: BackingCalls;
  readonly #locks = new ExtentLocks();
  readonly #route: RouteRequest;
  #size: Bytes;
  #changes = 0;

  constructor(
    pinned: PinnedImage,
    source: { readonly name: string; readonly allocated: Bytes; readonly generation: Generation },
    calls: BackingCalls,
    route: RouteRequest,
  ) {
    this.name = source.name;
    this.slot = pinned.slot;
    this.allocated = source.allocated;
    this.generation = source.generation;
    this.file = new BackingFile(pinned.fd, calls);
    this.#calls = calls;
    this.#route = route;
    this.#size = pinned.size;
  }

  /** As the source has made it so far. */
  get size(): Bytes {
    return this.#size;
  }

  /** How many changes the source has sent; the size that it has already is none. */
  get changes(): number {
    return this.#changes;
  }

  /** The source has made it so long, over the stream. */
  sizeIs(size: number): void {
    this.#size = bytes(size);
  }

  /** So many were applied from the stream. */
  noteChanges(count: number): void {
    this.#changes += count;
  }

  /** A guest's change that reached this replica; `reply` is called exactly once. */
  routed(request: RoutedRequest, reply: ReplyRouted): void {
    this.#route(this, request, reply);
  }

  /** Performs a guest's change here, at once. */
  perform(request: RoutedRequest): number {
    return performRouted(this.#calls, request);
  }

  write(offset: number, chunks: PayloadChunks, applied: Applied): void {
    this.#changes++;
    const length = payloadLength(chunks);
    const what = `cannot write ${this.name} at ${offset}`;
    const now = length <= WRITE_NOW_BYTES_MAX;
    this.#ordered(offset, length, what, applied, () =>
      now ? this.file.writeNow(chunks, offset) : this.file.write(chunks, offset),
    );
    if (offset + length > this.#size) this.#size = bytes(offset + length);
  }

  punch(offset: number, length: number, applied: Applied): void {
    this.#changes++;
    this.#ordered(offset, length, `cannot punch a hole in ${this.name} at ${offset}`, applied, () =>
      this.file.punch(offset, length),
    );
  }

  resize(size: number, applied: Applied): void {
    if (size !== this.#size) this.#changes++;
    this.#ordered(0, TO_THE_END, `cannot resize ${this.name} to ${size}`, applied, () =>
      this.file.resize(size),
    );
    this.#size = bytes(size);
  }

  allocate(mode: number, offset: number, length: number, applied: Applied): void {
    this.#changes++;
    this.#ordered(0, TO_THE_END, `cannot allocate in ${this.name} at ${offset}`, applied, () => {
      this.file.allocate(mode, offset, length);
      this.#size = bytes(this.file.size());
    });
  }

  /** `applied` once everything before this call is on stable storage; what comes after need not wait for it. */
  sync(applied: Applied): void {
    void this.drained()
      .then(() => this.file.datasync())
      .then(
        () => applied(),
        (error: unknown) => applied(backingError(`cannot sync ${this.name}`, error)),
      );
  }

  /** Resolves when every change before this call has taken effect or failed, and every digest is through. */
  drained(): Promise<void> {
    return this.#locks.passed();
  }

  /**
   * SHA-256 of the extent, as far as it is within the image, after every change before this call. With `acceptZero` a
   * range that is all zeroes gives `zero` and no digest. Rejects with a `MigrateFsError`, or when the signal aborts.
   */
  async digest(
    offset: number,
    length: number,
    acceptZero: boolean,
    signal: AbortSignal,
  ): Promise<RangeDigest> {
    const lock = await this.#locks.acquire(offset, length, 'shared', signal);
    try {
      if (acceptZero && this.file.isHole(offset, length)) return { sha256: new Uint8Array(), zero: true };
      return await this.#digest(offset, length, acceptZero, signal);
    } catch (error) {
      throw signal.aborted ? error : backingError(`cannot read ${this.name} at ${offset}`, error);
    } finally {
      this.#locks.release(lock);
    }
  }

  async #digest(
    offset: number,
    length: number,
    acceptZero: boolean,
    signal: AbortSignal,
  ): Promise<RangeDigest> {
    const hash = createHash('sha256');
    const buffer = staggeredBuffer(Math.min(DIGEST_CHUNK, length));
    let zero = acceptZero;
    for (let done = 0; done < length; ) {
      signal.throwIfAborted();
      const read = await this.file.read(buffer, Math.min(buffer.length, length - done), offset + done);
      const chunk = buffer.subarray(0, read);
      hash.update(chunk);
      zero &&= chunk.equals(ZEROES.subarray(0, read));
      done += read;
      if (read < buffer.length) break;
    }
    return zero ? { sha256: new Uint8Array(), zero } : { sha256: hash.digest(), zero };
  }

  /** Performs `work` under the extent's lock: in this call where nothing is in the way and `work` is synchronous. */
  #ordered(offset: number, length: number, what: string, applied: Applied, work: Work): void {
    const lock = this.#locks.acquire(offset, length, 'exclusive');
    if (lock instanceof Promise) void lock.then((held) => this.#perform(held, what, applied, work));
    else this.#perform(lock, what, applied, work);
  }

  #perform(lock: ExtentLock, what: string, applied: Applied, work: Work): void {
    const end = (error?: unknown): void => {
      this.#locks.release(lock);
      applied(error === undefined ? undefined : backingError(what, error));
    };
    let under: unknown;
    try {
      under = work();
    } catch (error) {
      end(error);
      return;
    }
    if (under instanceof Promise) void under.then(() => end(), end);
    else end();
  }
}
