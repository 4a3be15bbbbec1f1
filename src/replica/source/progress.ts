import type { Clock } from '../../leaves/clock.js';
import type { Bytes } from '../../leaves/units.js';
import type { TransferCounters } from './ports.js';
import { RateMeter } from './rate-meter.js';

/** Counts and rates of one migration. Rates are smoothed bytes per second. */
export class Progress implements TransferCounters {
  readonly #net: RateMeter;
  readonly #written: RateMeter;
  readonly #dirtied: RateMeter;
  #sent = 0;
  #resent = 0;
  #mirrored = 0;
  #resending = false;

  constructor(clock: Clock) {
    this.#net = new RateMeter(clock);
    this.#written = new RateMeter(clock);
    this.#dirtied = new RateMeter(clock);
  }

  /** What is copied from now on counts as resent. */
  beginResend(): void {
    this.#resending = true;
  }

  sent(bytes: number, kind: 'copy' | 'mirror'): void {
    this.#sent += bytes;
    if (kind === 'mirror') this.#mirrored += bytes;
    else if (this.#resending) this.#resent += bytes;
  }

  acked(bytes: number): void {
    this.#net.add(bytes);
  }

  written(bytes: number): void {
    this.#written.add(bytes);
  }

  /** Bytes of blocks that became dirty, each block once until it is sent. */
  dirtied(bytes: number): void {
    this.#dirtied.add(bytes);
  }

  get bytesSent(): Bytes {
    return this.#sent as Bytes;
  }

  get bytesResent(): Bytes {
    return this.#resent as Bytes;
  }

  get bytesMirrored(): Bytes {
    return this.#mirrored as Bytes;
  }

  /** Payload bytes acknowledged. */
  get netRate(): number {
    return this.#net.rate;
  }

  get dirtyRate(): number {
    return this.#dirtied.rate;
  }

  /** Standard deviations of the two rates. */
  get netDeviation(): number {
    return this.#net.deviation;
  }

  get dirtyDeviation(): number {
    return this.#dirtied.deviation;
  }

  /** Takes one sample for the deviations; to be called every 250 ms or so. */
  sample(): void {
    this.#net.sample();
    this.#dirtied.sample();
  }

  /**
   * What the guests write: exact while their writes come through the replica thread; while they are only tracked, the
   * distinct dirty blocks are all that is known, so a block written twice between two looks counts once.
   */
  get writeRate(): number {
    return Math.max(this.#written.rate, this.#dirtied.rate);
  }
}
