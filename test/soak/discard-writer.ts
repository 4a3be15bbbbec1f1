/** A guest that writes blocks and discards them again, and can tell afterwards what each must hold (G1, G6). */
import { type FileHandle, open } from 'node:fs/promises';
import type { Random } from '../support/random.js';
import { run } from '../support/run.js';
import type { StampRegion } from '../support/stamp-writer.js';

const BLOCK_BYTES = 65536;

/** What a block holds: the number of the write that filled it, 0: zeroes. */
const contentOf = (block: Buffer): number | 'torn' => {
  const first = block.readDoubleLE(0);
  for (let at = 8; at < block.length; at += 8) if (block.readDoubleLE(at) !== first) return 'torn';
  return first;
};

export class DiscardWriter {
  readonly #region: StampRegion;
  readonly #random: Random;
  /** By block: what it may hold. More than one: a change was cut off. */
  readonly #may: Set<number>[];
  #last = 0;
  #stopping = false;
  #ended: Promise<void> = Promise.resolve();
  #refusal = '';

  /** The region is empty. */
  constructor(region: StampRegion, random: Random) {
    this.#region = region;
    this.#random = random;
    this.#may = Array.from({ length: region.length / BLOCK_BYTES }, () => new Set([0]));
  }

  /** Why the last change did not succeed, or the empty string. */
  get refusal(): string {
    return this.#refusal;
  }

  async start(path: string): Promise<void> {
    this.#stopping = false;
    this.#refusal = '';
    const file = await open(path, 'r+');
    this.#ended = this.#loop(file, path);
  }

  async ended(): Promise<void> {
    await this.#ended;
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    await this.#ended;
  }

  async check(path: string): Promise<string[]> {
    await using file = await open(path, 'r');
    const lost: string[] = [];
    const block = Buffer.alloc(BLOCK_BYTES);
    for (const [index, may] of this.#may.entries()) {
      await file.read(block, 0, BLOCK_BYTES, this.#region.offset + index * BLOCK_BYTES);
      const found = contentOf(block);
      if (found === 'torn' ? may.size === 1 : !may.has(found))
        lost.push(`block ${index}: found ${found}, may hold ${[...may].join(' or ')}`);
    }
    return lost;
  }

  async #loop(file: FileHandle, path: string): Promise<void> {
    try {
      while (!this.#stopping) await this.#change(file, path);
    } catch (error) {
      this.#refusal = (error as NodeJS.ErrnoException).code ?? String(error);
    } finally {
      await file.close().catch(() => undefined);
    }
  }

  async #change(file: FileHandle, path: string): Promise<void> {
    const index = this.#random.below(this.#may.length);
    const offset = this.#region.offset + index * BLOCK_BYTES;
    const content = this.#random.chance(50) ? 0 : ++this.#last;
    const may = this.#may[index]!;
    may.add(content);
    if (content > 0) {
      const block = Buffer.alloc(BLOCK_BYTES);
      for (let at = 0; at < BLOCK_BYTES; at += 8) block.writeDoubleLE(content, at);
      for (let done = 0; done < BLOCK_BYTES; )
        done += (await file.write(block, done, BLOCK_BYTES - done, offset + done)).bytesWritten;
    } else {
      const { code, stderr } = await run('fallocate', [
        '-p',
        '-o',
        `${offset}`,
        '-l',
        `${BLOCK_BYTES}`,
        path,
      ]);
      if (code !== 0)
        throw Object.assign(new Error(stderr), { code: /Read-only/.test(stderr) ? 'EROFS' : stderr });
    }
    this.#may[index] = new Set([content]);
  }
}
