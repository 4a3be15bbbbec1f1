import type { SegmentLoad, TransferLoad } from '../../leaves/time-left.js';
import type { Bytes } from '../../leaves/units.js';
import { SteadyRate } from './steady-rate.js';

/** What happened between two looks at a migration; bytes. */
export interface LoadSample {
  readonly seconds: number;
  readonly acked: number;
  readonly dirtied: number;
  readonly written: number;
  readonly mirrored: number;
  /** Of blocks written to, clean or dirty. */
  readonly blocks: number;
  /** Of blocks written to for the first time. */
  readonly newBlocks: number;
}

/** Where a migration stands. */
export interface Standing {
  readonly left: Bytes;
  readonly allocated: Bytes;
  readonly converging: boolean;
  /** What was left at the beginning of the present round. */
  readonly begunWith: Bytes;
  readonly segments: readonly SegmentLoad[];
}

/** Makes the load of a migration from samples of what really happened. */
export class LoadMeter {
  readonly #acked = new SteadyRate();
  readonly #dirtied = new SteadyRate();
  readonly #written = new SteadyRate();
  readonly #mirrored = new SteadyRate();
  readonly #blocks = new SteadyRate();
  readonly #newBlocks = new SteadyRate();

  sample({ seconds, acked, dirtied, written, mirrored, blocks, newBlocks }: LoadSample): void {
    this.#acked.sample(acked, seconds);
    this.#dirtied.sample(dirtied, seconds);
    this.#written.sample(written, seconds);
    this.#mirrored.sample(mirrored, seconds);
    this.#blocks.sample(blocks, seconds);
    this.#newBlocks.sample(newBlocks, seconds);
  }

  load({ left, allocated, converging, begunWith, segments }: Standing): TransferLoad {
    return {
      left,
      allocated,
      netRate: this.#acked.rate,
      dirtyRate: this.#dirtied.rate,
      writeRate: this.#written.rate,
      netDeviation: this.#acked.deviation,
      dirtyDeviation: this.#dirtied.deviation,
      converging,
      begunWith,
      segments,
      writes: {
        blocksPerByte: ratio(this.#blocks.rate, this.#written.rate),
        novelty: Math.min(1, ratio(this.#newBlocks.rate, this.#blocks.rate)),
        mirrored: Math.min(1, ratio(this.#mirrored.rate, this.#written.rate)),
      },
    };
  }
}

const ratio = (part: number, whole: number): number => (whole > 0 ? part / whole : 0);
