/** The disk of the benchmark's guest: all of it data before the guest writes anything, and each slot tells which it is. */
import { randomBytes } from 'node:crypto';
import { open } from 'node:fs/promises';
import { MiB } from '../src/leaves/units.js';
import { RECORD_BYTES } from '../test/vm/live-migration.js';
import type { Untouched } from '../test/vm/records.js';

const CHUNK_BYTES = 8 * MiB;

export class DiskPattern {
  readonly #page = randomBytes(RECORD_BYTES);

  /** What slot `slot` holds: the same random bytes everywhere, but for its number. */
  #stamp(slot: number): Buffer {
    this.#page.writeUInt32LE(slot + 1, 0);
    this.#page.writeUInt32LE(0, 4);
    return this.#page;
  }

  readonly untouched: Untouched = (slot, bytes) => this.#stamp(slot).equals(bytes);

  async write(path: string, size: number): Promise<void> {
    await using file = await open(path, 'w');
    const chunk = Buffer.alloc(Math.min(CHUNK_BYTES, size));
    for (let start = 0; start < size; start += chunk.length) {
      const length = Math.min(chunk.length, size - start);
      for (let at = 0; at < length; at += RECORD_BYTES)
        this.#stamp((start + at) / RECORD_BYTES).copy(chunk, at);
      await file.write(chunk, 0, length, start);
    }
  }
}
