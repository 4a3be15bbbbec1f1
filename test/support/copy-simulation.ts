/**
 * The copier's rounds without files or network, block by block: to try estimates of the time left against. The guest
 * writes at random or in order, the link is a token bucket, and a mirrored write gets at most every second byte.
 */
import { CONVERGE_BYTES, CONVERGE_SECONDS, ROUND_SHRINK_MIN } from '../../src/leaves/copy-forecast.js';
import type { SegmentLoad, TransferLoad } from '../../src/leaves/time-left.js';
import { SEGMENTS } from '../../src/leaves/time-left.js';
import { bytes } from '../../src/leaves/units.js';
import { LoadMeter } from '../../src/replica/source/load-meter.js';
import { Random } from './random.js';

const BLOCK = 64 * 1024;
const STEP_SECONDS = 0.01;
const SAMPLE_SECONDS = 0.25;
const SECONDS_MAX = 100_000;
/** Writes that a guest has under way. */
const QUEUE = 32;

export interface SimulatedGuest {
  /** Bytes per second that it wants to write at `seconds`. */
  readonly rate: (seconds: number) => number;
  /** Bytes of one write. */
  readonly size: number;
  /** Where the next write begins, as a part of the image; `written` is in bytes. */
  readonly at: (random: Random, written: number) => number;
}

export interface Simulation {
  /** Bytes of the image; all of it is allocated. */
  readonly size: number;
  /** Bytes per second. */
  readonly net: (seconds: number) => number;
  readonly guest: SimulatedGuest;
  readonly seed: number;
}

export interface SimulatedSample {
  readonly seconds: number;
  readonly load: TransferLoad;
}

/** How long it took, and what a migration would have reported meanwhile. */
export interface Simulated {
  readonly seconds: number;
  readonly samples: readonly SimulatedSample[];
}

export const simulate = (simulation: Simulation): Simulated => new Run(simulation).toTheEnd();

class Run {
  readonly #simulation: Simulation;
  readonly #random: Random;
  readonly #blocks: number;
  readonly #dirty: Uint8Array;
  readonly #touched: Uint8Array;
  readonly #meter = new LoadMeter();
  readonly #samples: SimulatedSample[] = [];
  #left: number;
  #phase: 'bulk' | 'resend' | 'converging' = 'bulk';
  #cursor = 0;
  #begunWith: number;
  #seconds = 0;
  #credit = 0;
  #owed = 0;
  /** What may be mirrored now; a write larger than it is paid afterwards. */
  #room = 0;
  #written = 0;
  #lastBlock = -1;
  #count = { acked: 0, dirtied: 0, written: 0, mirrored: 0, blocks: 0, newBlocks: 0 };

  constructor(simulation: Simulation) {
    this.#simulation = simulation;
    this.#random = new Random(simulation.seed);
    this.#blocks = Math.ceil(simulation.size / BLOCK);
    this.#dirty = new Uint8Array(this.#blocks).fill(1);
    this.#touched = new Uint8Array(this.#blocks);
    this.#left = this.#blocks;
    this.#begunWith = this.#blocks;
  }

  toTheEnd(): Simulated {
    let nextSample = SAMPLE_SECONDS;
    while (this.#seconds < SECONDS_MAX) {
      const budget = this.#simulation.net(this.#seconds) * STEP_SECONDS;
      const mirrored = this.#write(budget);
      this.#credit += budget - mirrored;
      if (this.#copy()) return { seconds: this.#seconds + STEP_SECONDS, samples: this.#samples };
      this.#seconds += STEP_SECONDS;
      if (this.#seconds < nextSample - STEP_SECONDS / 2) continue;
      nextSample += SAMPLE_SECONDS;
      this.#sample();
    }
    throw new Error('the simulated migration does not end');
  }

  /** Bytes mirrored. */
  #write(budget: number): number {
    const { guest, size } = this.#simulation;
    let mirrored = 0;
    this.#room = Math.min(this.#room + budget / 2, budget);
    this.#owed += guest.rate(this.#seconds) * STEP_SECONDS;
    if (this.#phase === 'converging') this.#owed = Math.min(this.#owed, guest.size * QUEUE);
    for (; this.#owed >= guest.size; this.#owed -= guest.size) {
      const block = Math.min(
        Math.floor((guest.at(this.#random, this.#written) * size) / BLOCK),
        this.#blocks - 1,
      );
      if (!this.#dirty[block]) {
        if (this.#phase !== 'converging') this.#mark(block);
        else if (this.#room <= 0) break;
        else {
          this.#room -= guest.size;
          mirrored += guest.size;
        }
      }
      this.#written += guest.size;
      this.#count.written += guest.size;
      this.#touch(block);
    }
    this.#count.mirrored += mirrored;
    this.#count.acked += mirrored;
    return mirrored;
  }

  #mark(block: number): void {
    this.#dirty[block] = 1;
    this.#left++;
    this.#count.dirtied += BLOCK;
  }

  #touch(block: number): void {
    if (block !== this.#lastBlock) this.#count.blocks += BLOCK;
    this.#lastBlock = block;
    if (this.#touched[block]) return;
    this.#touched[block] = 1;
    this.#count.newBlocks += BLOCK;
  }

  /** True: in sync. */
  #copy(): boolean {
    while (this.#credit >= BLOCK) {
      while (this.#cursor < this.#blocks && !this.#dirty[this.#cursor]) this.#cursor++;
      if (this.#cursor >= this.#blocks) {
        if (this.#endRound()) return true;
        if (this.#left > 0) continue;
        this.#credit = 0;
        return false;
      }
      this.#dirty[this.#cursor++] = 0;
      this.#left--;
      this.#credit -= BLOCK;
      this.#count.acked += BLOCK;
    }
    return this.#phase === 'converging' && this.#left === 0;
  }

  /** As ImageGroup does between two rounds. True: in sync. */
  #endRound(): boolean {
    if (this.#phase === 'converging' && this.#left === 0) return true;
    if (this.#phase === 'bulk') {
      this.#phase = 'resend';
      this.#begunWith = this.#blocks;
    }
    const net = this.#simulation.net(this.#seconds);
    const little = Math.max(CONVERGE_BYTES, net * CONVERGE_SECONDS) / BLOCK;
    if (this.#left <= little || this.#left >= this.#begunWith * ROUND_SHRINK_MIN) this.#phase = 'converging';
    this.#begunWith = this.#left;
    this.#cursor = 0;
    return false;
  }

  #sample(): void {
    this.#meter.sample({ seconds: SAMPLE_SECONDS, ...this.#count });
    this.#count = { acked: 0, dirtied: 0, written: 0, mirrored: 0, blocks: 0, newBlocks: 0 };
    const load = this.#meter.load({
      left: bytes(this.#left * BLOCK),
      allocated: bytes(this.#blocks * BLOCK),
      converging: this.#phase === 'converging',
      begunWith: bytes(this.#begunWith * BLOCK),
      segments: this.#segments(),
    });
    this.#samples.push({ seconds: this.#seconds, load });
  }

  #segments(): SegmentLoad[] {
    const edges = Array.from({ length: SEGMENTS }, (_, i) => Math.round((i * this.#blocks) / SEGMENTS));
    const starts = [...new Set([...edges, this.#cursor])]
      .filter((start) => start < this.#blocks)
      .sort((a, b) => a - b);
    return starts.map((start, i) => {
      const end = starts[i + 1] ?? this.#blocks;
      const count = (bits: Uint8Array): number =>
        bits.subarray(start, end).reduce((sum, each) => sum + each, 0);
      return {
        ahead: start >= this.#cursor,
        allocated: bytes((end - start) * BLOCK),
        dirty: bytes(count(this.#dirty) * BLOCK),
        touched: bytes(count(this.#touched) * BLOCK),
      };
    });
  }
}
