/** Many writers of one small region, whose changes overlap: no order is right or wrong, but both sides must have the same. */
import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { KiB } from '../../src/leaves/units.js';
import { Random } from './random.js';
import { run } from './run.js';
import type { StampRegion } from './stamp-writer.js';

const SECTOR_BYTES = 512;
/** Of these some overlap at any time, and most do not, so that they stay in the lane for a while. */
const WRITE_BYTES_MAX_DEFAULT = 4 * KiB;

/** What is done beside writes, in percent of all changes, and how long these may be. */
export interface OverlapShape {
  readonly discards?: number;
  readonly truncations?: number;
  readonly syncs?: number;
  /** Writes through a descriptor that was opened with O_DSYNC. */
  readonly durable?: number;
  readonly writeBytesMax?: number;
}

export class OverlapLoad {
  readonly #region: StampRegion;
  readonly #random: Random;
  readonly #others: Required<OverlapShape>;
  #jobs: Promise<void>[] = [];
  #path = '';
  #stopping = false;
  #changes = 0;

  constructor(region: StampRegion, seed: number, others: OverlapShape = {}) {
    this.#region = region;
    this.#random = new Random(seed);
    this.#others = {
      discards: 0,
      truncations: 0,
      syncs: 0,
      durable: 0,
      writeBytesMax: WRITE_BYTES_MAX_DEFAULT,
      ...others,
    };
  }

  /** Changes that have succeeded. */
  get changes(): number {
    return this.#changes;
  }

  /** Starts `jobs` loops of changes, as many as there can be at once. */
  async start(path: string, jobs: number): Promise<void> {
    this.#stopping = false;
    this.#path = path;
    const file = await open(path, 'r+');
    const durable = await open(path, constants.O_RDWR | constants.O_DSYNC);
    this.#jobs = Array.from({ length: jobs }, () => this.#job(file, durable));
    void Promise.allSettled(this.#jobs).then(() => Promise.all([file.close(), durable.close()]));
  }

  /** Rejects with the first error that a change met. */
  async stop(): Promise<void> {
    this.#stopping = true;
    await Promise.all(this.#jobs);
  }

  async #job(file: FileHandle, durable: FileHandle): Promise<void> {
    while (!this.#stopping) {
      await this.#change(file, durable);
      this.#changes++;
    }
  }

  async #change(file: FileHandle, durable: FileHandle): Promise<void> {
    const { discards, truncations, syncs, durable: durableWrites, writeBytesMax } = this.#others;
    const { offset: begin, length } = this.#region;
    const sectors = 1 + this.#random.below(writeBytesMax / SECTOR_BYTES);
    const at = begin + SECTOR_BYTES * this.#random.below(length / SECTOR_BYTES - sectors);
    let what = this.#random.below(100);
    what -= discards;
    if (what < 0) {
      // Not in this process, whose event loop may be the network between the two sides.
      const range = ['-o', `${at}`, '-l', `${sectors * SECTOR_BYTES}`];
      const { code, stderr } = await run('fallocate', ['-p', ...range, this.#path]);
      if (code !== 0) throw new Error(stderr);
      return;
    }
    what -= truncations;
    if (what < 0) return file.truncate(at + sectors * SECTOR_BYTES);
    what -= syncs;
    if (what < 0) return file.datasync();
    what -= durableWrites;
    const data = Buffer.alloc(sectors * SECTOR_BYTES, this.#random.next() & 0xff);
    await (what < 0 ? durable : file).write(data, 0, data.length, at);
  }
}
