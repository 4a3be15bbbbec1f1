/**
 * A writer that can tell afterwards whether an acknowledged write was lost (G1), also when the file is fenced under it:
 * every sector it writes carries its place and a number that grows.
 */
import { type FileHandle, open } from 'node:fs/promises';
import { alignedBytes } from '../../src/fs/kernel/aligned-memory.js';
import { Random } from './random.js';

const SECTOR_BYTES = 512;
/** Most writes are small; some are larger than the kernel sends in one request. */
const WRITE_SECTORS_SMALL = 32;
const WRITE_SECTORS_MAX = 2560;
const LARGE_PERCENT = 3;
const SYNC_PERCENT = 2;
/** In place of an acknowledged stamp: this writer has not written the sector, and something else may have. */
const UNKNOWN = -2;
/** In place of a found stamp: the sector holds parts of two writes, or belongs elsewhere. */
const TORN = -1;

export interface StampRegion {
  /** Bytes; multiples of the sector. */
  readonly offset: number;
  readonly length: number;
}

/** The file holds, for each sector, the stamp of the last acknowledged write, or of one that was never answered with success. */
export interface StampReport {
  readonly writes: number;
  /** Sectors whose content no write order explains. */
  readonly lost: readonly string[];
}

const stampSector = (buffer: Buffer, at: number, sector: number, stamp: number): void => {
  for (let word = at; word < at + SECTOR_BYTES; word += 16) {
    buffer.writeDoubleLE(sector, word);
    buffer.writeDoubleLE(stamp, word + 8);
  }
};

/** The stamp of a whole sector, or `TORN`; 0 when nothing was ever written there. */
const stampOf = (buffer: Buffer, at: number, sector: number): number => {
  const stamp = buffer.readDoubleLE(at + 8);
  const place = buffer.readDoubleLE(at);
  if (stamp === 0 && place === 0) return 0;
  for (let word = at; word < at + SECTOR_BYTES; word += 16)
    if (buffer.readDoubleLE(word) !== sector || buffer.readDoubleLE(word + 8) !== stamp) return TORN;
  return stamp;
};

export class StampWriter {
  readonly #region: StampRegion;
  /** Stamp of the last acknowledged write of each sector. */
  readonly #acknowledged: Float64Array;
  /** Stamps of writes that failed or were cut off: the sector may hold them or not. */
  readonly #uncertain = new Map<number, Set<number>>();
  readonly #random: Random;
  #stamp: number;
  #writes = 0;
  #stopping = false;
  #lanes: Promise<void>[] = [];
  #refusal: NodeJS.ErrnoException | null = null;
  #longestMillis = 0;

  /** `before`: the highest stamp the region may hold from earlier; with 0 it must be empty. */
  constructor(region: StampRegion, seed: number, before = 0) {
    this.#region = region;
    this.#stamp = before;
    this.#acknowledged = new Float64Array(region.length / SECTOR_BYTES).fill(before === 0 ? 0 : UNKNOWN);
    this.#random = new Random(seed);
  }

  /** Starts `lanes` writers, each in its own part of the region, until `stop`, or until a write is refused. */
  async start(path: string, lanes: number): Promise<void> {
    this.#stopping = false;
    this.#refusal = null;
    const files = await Promise.all(Array.from({ length: lanes }, () => open(path, 'r+')));
    const sectors = Math.floor(this.#acknowledged.length / lanes);
    this.#lanes = files.map((file, lane) => this.#lane(file, lane * sectors, sectors));
  }

  /** Resolves when all writers have ended: stopped, or refused. */
  async ended(): Promise<void> {
    await Promise.all(this.#lanes);
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    await this.ended();
  }

  /** The error of the write that was refused, if one was. */
  get refusal(): NodeJS.ErrnoException | null {
    return this.#refusal;
  }

  get writes(): number {
    return this.#writes;
  }

  /** The longest that one write took since this was last read, milliseconds. */
  takeLongest(): number {
    const longest = this.#longestMillis;
    this.#longestMillis = 0;
    return longest;
  }

  async #lane(file: FileHandle, first: number, sectors: number): Promise<void> {
    // The kernel cuts a large write into requests by the pages of this buffer: never within a sector. One that was made and not
    // answered, as its daemon was killed, would leave a sector of two writes.
    const memory = alignedBytes(WRITE_SECTORS_MAX * SECTOR_BYTES, 0);
    const buffer = Buffer.from(memory.buffer, memory.byteOffset, memory.length);
    try {
      while (!this.#stopping && this.#refusal === null) {
        const most = this.#random.chance(LARGE_PERCENT) ? WRITE_SECTORS_MAX : WRITE_SECTORS_SMALL;
        const count = 1 + this.#random.below(Math.min(most, sectors));
        const sector = first + this.#random.below(sectors - count + 1);
        await this.#write(file, buffer, sector, count);
        if (this.#random.chance(SYNC_PERCENT)) await file.sync();
      }
    } catch (error) {
      this.#refusal ??= error as NodeJS.ErrnoException;
    } finally {
      await file.close().catch(() => undefined);
    }
  }

  async #write(file: FileHandle, buffer: Buffer, sector: number, count: number): Promise<void> {
    const stamp = ++this.#stamp;
    for (let i = 0; i < count; i++) stampSector(buffer, i * SECTOR_BYTES, sector + i, stamp);
    const began = performance.now();
    let done = 0;
    try {
      // A request larger than the kernel's is cut up; what was taken before a refusal is acknowledged, as a short write.
      while (done < count) {
        const { bytesWritten } = await file.write(
          buffer,
          done * SECTOR_BYTES,
          (count - done) * SECTOR_BYTES,
          this.#region.offset + (sector + done) * SECTOR_BYTES,
        );
        const sectors = Math.floor(bytesWritten / SECTOR_BYTES);
        this.#acknowledge(sector + done, sectors, stamp);
        done += sectors;
        // A disk that becomes full may take a part of a sector; the rest of it may be refused.
        if (bytesWritten % SECTOR_BYTES > 0) this.#mayHold(sector + done, TORN);
      }
    } catch (error) {
      for (let i = sector + done; i < sector + count; i++) this.#mayHold(i, stamp);
      throw error;
    }
    this.#longestMillis = Math.max(this.#longestMillis, performance.now() - began);
    this.#writes++;
  }

  #mayHold(sector: number, stamp: number): void {
    this.#uncertain.set(sector, (this.#uncertain.get(sector) ?? new Set()).add(stamp));
  }

  #acknowledge(first: number, count: number, stamp: number): void {
    this.#acknowledged.fill(stamp, first, first + count);
    if (this.#uncertain.size > 0)
      for (let sector = first; sector < first + count; sector++) this.#uncertain.delete(sector);
  }

  /** Reads the region of `path` and compares it with what was acknowledged. */
  async check(path: string): Promise<StampReport> {
    await using file = await open(path, 'r');
    const buffer = Buffer.alloc(this.#region.length);
    await file.read(buffer, 0, buffer.length, this.#region.offset);
    const lost: string[] = [];
    for (let sector = 0; sector < this.#acknowledged.length; sector++) {
      const found = stampOf(buffer, sector * SECTOR_BYTES, sector);
      const wanted = this.#acknowledged[sector]!;
      if (found === wanted || wanted === UNKNOWN || this.#uncertain.get(sector)?.has(found)) continue;
      lost.push(
        `sector ${sector}: found ${found === TORN ? 'a torn write' : `write ${found}`}, acknowledged ${wanted}`,
      );
    }
    return { writes: this.#writes, lost };
  }
}
