/** A guest that writes at random within a part of an image, at a steady rate, and counts what it wrote. */
import { open } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { Random } from './random.js';
import type { StampRegion } from './stamp-writer.js';

const WRITE_BYTES = 4096;
/** What a busy machine kept it from writing is not made up for beyond this. */
const CATCH_UP_MS = 20;
const WINDOW_MS = 500;

export class SteadyWriter {
  readonly #region: StampRegion;
  /** Bytes per second. */
  readonly #rate: number;
  readonly #random: Random;
  readonly #stop = new AbortController();
  readonly #windows: number[] = [];
  #job: Promise<void> = Promise.resolve();

  constructor(region: StampRegion, rate: number, seed: number) {
    this.#region = region;
    this.#rate = rate;
    this.#random = new Random(seed);
  }

  /** Bytes per second that it wrote within each half of a second, or a little longer, so far. */
  get windows(): readonly number[] {
    return this.#windows;
  }

  start(path: string): void {
    this.#job = this.#write(path);
    // Told of by `stop`.
    this.#job.catch(() => undefined);
  }

  /** Rejects with the error of a write. */
  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#job;
  }

  async #write(path: string): Promise<void> {
    await using file = await open(path, 'r+');
    const block = Buffer.alloc(WRITE_BYTES, 0xa5);
    let written = 0;
    let since = performance.now();
    let due = since;
    while (!this.#stop.signal.aborted) {
      const at = this.#region.offset + WRITE_BYTES * this.#random.below(this.#region.length / WRITE_BYTES);
      await file.write(block, 0, WRITE_BYTES, at);
      written += WRITE_BYTES;
      const now = performance.now();
      if (now - since >= WINDOW_MS) {
        this.#windows.push((written * 1000) / (now - since));
        [written, since] = [0, now];
      }
      due = Math.max(due + (1000 * WRITE_BYTES) / this.#rate, now - CATCH_UP_MS);
      if (due > now) await sleep(due - now);
    }
  }
}
