import type { Abortable } from '../../leaves/abort-handle.js';
import { AbortHandle } from '../../leaves/abort-handle.js';
import type { Bytes } from '../../leaves/units.js';
import { bytes, MiB } from '../../leaves/units.js';
import type { ExtentLocks } from '../extent-locks.js';
import type { BufferPool } from './buffer-pool.js';
import { Latch } from './latch.js';
import type { ImagePort, Settled, TransferCounters, WirePort } from './ports.js';
import type { Window } from './window.js';

/** Bytes of mirrored writes of one migration that are on their way and not acknowledged. */
export const MIRRORED_BYTES_MAX: Bytes = bytes(16 * MiB);

/** The part of a token bucket a writer needs; `undefined`: at once. */
export type TakeTokens = (amount: number, by: Abortable) => Promise<void> | undefined;

export interface MirrorSenderOptions {
  /** Number of the image within its group. */
  readonly image: number;
  readonly port: ImagePort;
  readonly wire: WirePort;
  readonly locks: ExtentLocks;
  readonly buffers: BufferPool;
  readonly counters: TransferCounters;
  readonly takeNet: TakeTokens;
  readonly window: Window;
}

/** A write that the source has performed and the target has not been sent; its writer waits. */
interface Unsent {
  readonly offset: number;
  readonly length: number;
  readonly hold: AbortHandle;
  readonly settled: Settled;
}

/**
 * Sends what was written to clean blocks, as fast as the network limit and the target allow. What has to wait is not
 * kept in memory, however much a guest has under way: it is read from the image again when its turn comes, with whatever
 * was written there since. So the bytes that reach the target are never older than the write that they are sent for.
 */
export class MirrorSender {
  readonly #options: MirrorSenderOptions;
  readonly #unsent = new Set<Unsent>();
  readonly #left = new Latch();

  constructor(options: MirrorSenderOptions) {
    this.#options = options;
  }

  /** Whether something waits that overlaps the range. */
  waits(offset = 0, length = Number.MAX_SAFE_INTEGER): boolean {
    for (const unsent of this.#unsent)
      if (unsent.offset < offset + length && offset < unsent.offset + unsent.length) return true;
    return false;
  }

  /**
   * Sends a write that was just performed, under its lock; `payload` must not change until it is settled. True: it has to
   * wait, and `payload` is not needed any more.
   */
  send(offset: number, payload: Uint8Array, settled: Settled): boolean {
    const { length } = payload;
    const hold = new AbortHandle();
    const admitted = this.#admit(length, hold);
    if (!admitted) {
      this.#transmit(offset, payload, settled, length);
      return false;
    }
    const unsent = { offset, length, hold, settled };
    this.#unsent.add(unsent);
    admitted.then(
      () => this.#sendNow(unsent),
      () => {
        if (!this.#unsent.has(unsent)) return;
        this.#options.window.force(length);
        this.#sendNow(unsent);
      },
    );
    return true;
  }

  /** Sends what waits in the range without regard to limits. */
  hurry(offset = 0, length = Number.MAX_SAFE_INTEGER): void {
    for (const unsent of this.#unsent)
      if (unsent.offset < offset + length && offset < unsent.offset + unsent.length) unsent.hold.abort();
  }

  /** Resolves when nothing waits in the range; rejects with the signal's reason. */
  async sent(signal: AbortSignal, offset = 0, length = Number.MAX_SAFE_INTEGER): Promise<void> {
    while (this.waits(offset, length)) await this.#left.changed(signal);
  }

  /** Settles as lost what waits: the target will not get it from here. */
  giveUp(): void {
    for (const unsent of this.#unsent) {
      this.#unsent.delete(unsent);
      unsent.hold.abort();
      unsent.settled('lost');
    }
    this.#left.notify();
  }

  #admit(length: number, hold: AbortHandle): Promise<void> | undefined {
    const { takeNet, window } = this.#options;
    const tokens = takeNet(length, hold);
    if (tokens) return tokens.then(() => window.take(length, hold.signal));
    return window.tryTake(length) ? undefined : window.take(length, hold.signal);
  }

  /** Its share of the window is taken. */
  #sendNow(unsent: Unsent): void {
    const { locks } = this.#options;
    const { offset, length } = unsent;
    const asked = locks.acquire(offset, length, 'exclusive');
    void (async () => {
      const lock = asked instanceof Promise ? await asked : asked;
      try {
        if (!(await this.#readAndSend(unsent))) this.#options.window.give(length);
      } finally {
        locks.release(lock);
        this.#left.notify();
      }
    })();
  }

  /** False: nothing was sent. */
  async #readAndSend(unsent: Unsent): Promise<boolean> {
    const { port, buffers } = this.#options;
    const { offset, length, settled } = unsent;
    const buffer = buffers.take(length);
    let count = 0;
    let failed = false;
    try {
      if (this.#unsent.has(unsent)) count = await port.read(buffer.subarray(0, length), offset);
    } catch {
      // It stays dirty, so the copier meets the same error and reports it.
      failed = true;
    }
    const wanted = this.#unsent.delete(unsent);
    if (wanted && count > 0) {
      const payload = buffer.subarray(0, count);
      this.#transmit(
        offset,
        payload,
        (outcome) => {
          if (outcome === 'acked') buffers.give(buffer);
          settled(outcome);
        },
        length,
      );
      return true;
    }
    buffers.give(buffer);
    // Cut off since, and the target knows the size.
    if (wanted) settled(failed ? 'lost' : 'acked');
    return false;
  }

  /** `taken`: of the window. */
  #transmit(offset: number, payload: Uint8Array, settled: Settled, taken: number): void {
    const { image, wire, counters, window } = this.#options;
    counters.sent(payload.length, 'mirror');
    wire.send({ kind: 'data', image, offset, payload, mirror: true }, (outcome) => {
      window.give(taken);
      if (outcome === 'acked') counters.acked(payload.length);
      settled(outcome);
    });
  }
}
