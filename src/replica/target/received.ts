import type { Clock } from '../../leaves/clock.js';
import type { MigrationState } from '../../leaves/migration.js';
import { isFinal } from '../../leaves/migration.js';
import type { Bytes } from '../../leaves/units.js';
import { bytes } from '../../leaves/units.js';
import { RateMeter } from '../source/rate-meter.js';
import type { MigrationTerms } from './migration-terms.js';

/** How much of a migration has arrived at its target, and how much the source says is left. */
export class Received {
  readonly #allocated: number;
  readonly #rate: RateMeter;
  #total: number;
  #left: number;
  #bytes = 0;
  #mirrored = 0;

  constructor(clock: Clock, terms: MigrationTerms) {
    this.#rate = new RateMeter(clock);
    this.#allocated = terms.images.reduce((sum, { allocated }) => sum + allocated, 0);
    this.#total = this.#allocated;
    this.#left = this.#allocated;
  }

  get left(): Bytes {
    return bytes(this.#left);
  }

  /** Payload arrived. */
  add(length: number, mirror: boolean): void {
    this.#bytes += length;
    if (mirror) this.#mirrored += length;
    this.#rate.add(length);
  }

  announced(total: number, left: number): void {
    this.#total = bytes(total);
    this.#left = bytes(left);
  }

  complete(): void {
    this.#left = 0;
  }

  /** Bytes the source has still to send, as far as is known. */
  promised(state: MigrationState): number {
    if (isFinal(state)) return 0;
    const copying = state === 'preparing' || state === 'bulk-copy';
    return Math.max(this.#left, copying ? this.#allocated - this.#bytes : 0);
  }

  describe(): {
    readonly bytesTotal: Bytes;
    readonly bytesLeft: Bytes;
    readonly bytesSent: Bytes;
    readonly bytesResent: Bytes;
    readonly bytesMirrored: Bytes;
    readonly netRate: number;
  } {
    return {
      bytesTotal: bytes(this.#total),
      bytesLeft: bytes(this.#left),
      bytesSent: bytes(this.#bytes),
      bytesResent: bytes(0),
      bytesMirrored: bytes(this.#mirrored),
      netRate: this.#rate.rate,
    };
  }
}
