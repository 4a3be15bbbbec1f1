import type { Clock } from '../../leaves/clock.js';
import type { Bytes } from '../../leaves/units.js';
import type { TransferCounters } from './ports.js';
import { RateMeter } from './rate-meter.js';

/** Counts and rates of one migration. Rates are smoothed bytes per second. */
export class Progress implements TransferCounters {
  readonly #net: RateMeter;
  readonly #written: RateMeter;
  readonly #dirtied: RateMeter;
  #acked = 0;
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
    this.#acked += bytes;
    this.#net.add(bytes);
  }

  /**
   * Seen within the last `elapsed` milliseconds: bytes that guests wrote, and of blocks that became dirty, each block
   * once until it is sent.
   */
  observed(written: number, dirtied: number, elapsed: number): void {
    this.#written.add(written, elapsed);
    this.#dirtied.add(dirtied, elapsed);
  }

  get bytesAcked(): Bytes {
    return this.#acked as Bytes;
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

  /** What the guests write. */
  get writeRate(): number {
    return this.#written.rate;
  }
}
