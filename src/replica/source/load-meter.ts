import type { SegmentLoad, TransferLoad } from '../../leaves/time-left.js';
import type { Bytes } from '../../leaves/units.js';
import { bytes } from '../../leaves/units.js';
import { SteadyRate, smoothing } from './steady-rate.js';

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
  readonly #found = new FoundBlocks();

  sample({ seconds, acked, dirtied, written, mirrored, blocks, newBlocks }: LoadSample): void {
    this.#acked.sample(acked, seconds);
    this.#dirtied.sample(dirtied, seconds);
    this.#written.sample(written, seconds);
    this.#mirrored.sample(mirrored, seconds);
    this.#blocks.sample(blocks, seconds);
    this.#found.sample(blocks, newBlocks, seconds);
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
        workingSet: bytes(Math.round(this.#found.workingSet(allocated))),
        sequential: this.#found.sequential(allocated),
        mirrored: Math.min(1, ratio(this.#mirrored.rate, this.#written.rate)),
      },
    };
  }
}

/** Less of the images than this was found: too early to tell sequential writes from random ones. */
const FOUND_SHARE_MIN = 0.02;
/** A smaller part is noise. */
const SEQUENTIAL_MIN = 0.3;

/**
 * How many of the blocks that guests write to are new. A random block of a working set is new with the probability
 * 1 - found / workingSet, so what was found is averaged over the same writes as what was new: it grows meanwhile.
 */
class FoundBlocks {
  #age = 0;
  #found = 0;
  /** Weighted sums over the past: blocks, new ones, and what was found when each was written. */
  #blocks = 0;
  #new = 0;
  #foundThen = 0;

  sample(blocks: number, newBlocks: number, seconds: number): void {
    this.#age += seconds;
    const kept = Math.exp(-seconds / smoothing(this.#age));
    const foundThen = this.#found + newBlocks / 2;
    this.#found += newBlocks;
    this.#blocks = this.#blocks * kept + blocks;
    this.#new = this.#new * kept + newBlocks;
    this.#foundThen = this.#foundThen * kept + blocks * foundThen;
  }

  /** Bytes; no more than all. */
  workingSet(allocated: number): number {
    const old = this.#blocks - this.#new;
    const estimate = old > 0 ? this.#foundThen / old : allocated;
    return Math.min(allocated, Math.max(estimate, this.#found));
  }

  /** Random writes to everything would find new blocks with the probability 1 - found; more is sequential. */
  sequential(allocated: number): number {
    const share = Math.min(1, ratio(this.#foundThen, this.#blocks * allocated));
    if (share < FOUND_SHARE_MIN) return 0;
    const part = (ratio(this.#new, this.#blocks) - 1 + share) / share;
    return part < SEQUENTIAL_MIN ? 0 : Math.min(part, 1);
  }
}

const ratio = (part: number, whole: number): number => (whole > 0 ? part / whole : 0);
