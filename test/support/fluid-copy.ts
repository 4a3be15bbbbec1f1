/**
 * The copier's rounds as a fluid: the guest writes at random all over the image, so cells of it are enough. Bytes and
 * seconds.
 */
import { CONVERGE_BYTES, CONVERGE_SECONDS, ROUND_SHRINK_MIN } from '../../src/leaves/copy-forecast.js';
import type { TransferLoad } from '../../src/leaves/time-left.js';
import { SEGMENTS } from '../../src/leaves/time-left.js';
import { bytes } from '../../src/leaves/units.js';

/** As many as a snapshot has. */
const CELLS = SEGMENTS;
/** As in the replica: what happened this long ago counts 1/e. */
const SMOOTHING = 2;

type Phase = 'bulk-copy' | 'dirty-resend' | 'converging' | 'in-sync';

export class FluidCopy {
  readonly #size: number;
  readonly #cell: number;
  readonly #dirty: number[];
  #phase: Phase = 'bulk-copy';
  #cursor = 0;
  /** Of the cell at the cursor, what is still to be sent. */
  #current: number;
  #begunWith: number;
  /** The part of the image that was never written to. */
  #untouched = 1;
  #seconds = 0;
  #net = 0;
  #dirtied = 0;
  #written = 0;
  #mirrored = 0;

  constructor(size: number) {
    this.#size = size;
    this.#cell = size / CELLS;
    this.#dirty = new Array<number>(CELLS).fill(this.#cell);
    this.#begunWith = size;
    this.#current = this.#arrive();
  }

  get phase(): Phase {
    return this.#phase;
  }

  get left(): number {
    return this.#current + this.#dirty.reduce((sum, each) => sum + each, 0);
  }

  /** What it would send: everything there is, or in sync what the guest writes. */
  wanted(writes: number): number {
    return this.#phase === 'in-sync' ? writes : Number.MAX_VALUE;
  }

  /** The link carries `net` and the guest wants to write `writes`, both bytes per second, for so many seconds. */
  advance(seconds: number, net: number, writes: number): void {
    const converging = this.#phase === 'converging' || this.#phase === 'in-sync';
    const clean = 1 - this.left / this.#size;
    const room = this.#phase === 'in-sync' ? net : net / 2;
    const mirrored = converging ? Math.min(writes * clean, room) : 0;
    const written = converging ? writes * (1 - clean) + mirrored : writes;
    const dirtied = converging ? 0 : this.#write(written * seconds);
    this.#untouched *= Math.exp((-written * seconds) / this.#size);
    if (this.#phase !== 'in-sync') this.#send((net - mirrored) * seconds, net);
    this.#measure(seconds, { net, dirtied: dirtied / seconds, written, mirrored });
  }

  get load(): TransferLoad {
    const touched = bytes(Math.round((1 - this.#untouched) * this.#cell));
    return {
      left: bytes(Math.round(this.left)),
      allocated: bytes(this.#size),
      netRate: this.#net,
      dirtyRate: this.#dirtied,
      writeRate: this.#written,
      netDeviation: 0,
      dirtyDeviation: 0,
      converging: this.#phase === 'converging' || this.#phase === 'in-sync',
      begunWith: bytes(Math.round(this.#begunWith)),
      segments: this.#dirty.map((dirty, i) => ({
        ahead: i > this.#cursor,
        allocated: bytes(Math.round(this.#cell)),
        dirty: bytes(Math.round(dirty)),
        touched,
      })),
      writes: {
        blocksPerByte: 1,
        workingSet: bytes(this.#size),
        sequential: 0,
        mirrored: this.#written > 0 ? this.#mirrored / this.#written : 0,
      },
    };
  }

  /** Bytes that became dirty: only a clean block can. */
  #write(amount: number): number {
    let dirtied = 0;
    const part = -Math.expm1(-amount / this.#size);
    for (let i = 0; i < CELLS; i++) {
      const more = (this.#cell - this.#dirty[i]!) * part;
      this.#dirty[i]! += more;
      dirtied += more;
    }
    return dirtied;
  }

  #send(amount: number, net: number): void {
    let rest = amount;
    while (rest >= this.#current) {
      rest -= this.#current;
      this.#current = 0;
      this.#cursor++;
      if (this.#cursor === CELLS) this.#endRound(net);
      if (this.#phase === 'in-sync') return;
      this.#current = this.#arrive();
    }
    this.#current -= rest;
  }

  #arrive(): number {
    const found = this.#dirty[this.#cursor]!;
    this.#dirty[this.#cursor] = 0;
    return found;
  }

  #endRound(net: number): void {
    const { left } = this;
    const little = Math.max(CONVERGE_BYTES, net * CONVERGE_SECONDS);
    if (left < 1) this.#phase = 'in-sync';
    else if (this.#phase === 'converging' || left <= little || left >= this.#begunWith * ROUND_SHRINK_MIN)
      this.#phase = 'converging';
    else this.#phase = 'dirty-resend';
    this.#begunWith = left;
    this.#cursor = 0;
  }

  /** Divided by what was really seen, as the replica's meter does. */
  #measure(seconds: number, now: { net: number; dirtied: number; written: number; mirrored: number }): void {
    this.#seconds += seconds;
    const weight = -Math.expm1(-seconds / SMOOTHING) / -Math.expm1(-this.#seconds / SMOOTHING);
    this.#net += weight * (now.net - this.#net);
    this.#dirtied += weight * (now.dirtied - this.#dirtied);
    this.#written += weight * (now.written - this.#written);
    this.#mirrored += weight * (now.mirrored - this.#mirrored);
  }
}
