import { Errno } from '../../fs/errno.js';
import type { RoutedRequest } from '../../fs/participant.js';
import type { Clock } from '../../leaves/clock.js';
import type { Bytes, Millis } from '../../leaves/units.js';
import { bytes, GiB, millis } from '../../leaves/units.js';

/**
 * Guest changes that wait for ownership, payload in memory; more are refused. A VM comes with its queues full: there is room
 * for all asynchronous requests of the kernel, or for four disks with 1,024 requests of 256 KiB each.
 */
const HELD_REQUESTS_MAX = 16_384;
const HELD_BYTES_MAX: Bytes = bytes(1 * GiB);
/** How long a guest waits at most before it gets an error; the source may take a third of it to drain. */
export const CUTOVER_STALL_MAX = millis(30_000);
/** The same after the connection is lost, within `CUTOVER_STALL_MAX`. */
export const LOST_STALL_MAX = millis(10_000);

export type ReplyRouted = (result: number) => void;

interface Held {
  readonly request: RoutedRequest;
  readonly reply: ReplyRouted;
}

/** Guest changes that reached the target before it owns the images, in their order; every one gets its answer. */
export class HeldRequests {
  readonly #clock: Clock;
  readonly #expired: (count: number) => void;
  #held: Held[] = [];
  #bytes = 0;
  #since: Millis | undefined;
  #lostAt: Millis | undefined;
  #forget: () => void = () => {};

  /** `expired` is told how many were refused because ownership did not come in time. */
  constructor(clock: Clock, expired: (count: number) => void) {
    this.#clock = clock;
    this.#expired = expired;
  }

  get size(): number {
    return this.#held.length;
  }

  /** Since when the oldest one waits. */
  get since(): Millis | undefined {
    return this.#since;
  }

  /** Keeps the request until `releaseAll` or `refuseAll`; answers EROFS at once when too much is held. */
  hold(request: RoutedRequest, reply: ReplyRouted): void {
    const length = request.op === 'write' ? request.payload.length : 0;
    if (this.#held.length >= HELD_REQUESTS_MAX || this.#bytes + length > HELD_BYTES_MAX) {
      reply(-Errno.EROFS);
      return;
    }
    if (this.#held.length === 0) {
      this.#since = this.#clock.now();
      this.#limit();
    }
    this.#held.push({ request, reply });
    this.#bytes += length;
  }

  /** Whether the source can be reached; at first it can. */
  setConnected(connected: boolean): void {
    if (connected === (this.#lostAt === undefined)) return;
    this.#lostAt = connected ? undefined : this.#clock.now();
    this.#limit();
  }

  /** Answers each with what `perform` returns, in order. Returns how long the oldest had waited, if any waited. */
  releaseAll(perform: (request: RoutedRequest) => number): Millis | undefined {
    const since = this.#since;
    for (const { request, reply } of this.#take()) reply(perform(request));
    return since === undefined ? undefined : millis(this.#clock.now() - since);
  }

  /** Answers each with EROFS; returns how many. */
  refuseAll(): number {
    const held = this.#take();
    for (const { reply } of held) reply(-Errno.EROFS);
    return held.length;
  }

  #limit(): void {
    this.#forget();
    if (this.#since === undefined) return;
    const now = this.#clock.now();
    const left = this.#since + CUTOVER_STALL_MAX - now;
    const leftOfLoss =
      this.#lostAt === undefined ? left : Math.max(this.#lostAt, this.#since) + LOST_STALL_MAX - now;
    const delay = millis(Math.max(0, Math.min(left, leftOfLoss)));
    this.#forget = this.#clock.after(delay, () => this.#expired(this.refuseAll()));
  }

  #take(): Held[] {
    const held = this.#held;
    this.#forget();
    this.#held = [];
    this.#bytes = 0;
    this.#since = undefined;
    return held;
  }
}
