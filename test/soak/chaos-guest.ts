/** A VM without a hypervisor: some images, each with writers that know what was acknowledged. */
import { rm } from 'node:fs/promises';
import { MiB } from '../../src/leaves/units.js';
import { makeSparseImage } from '../support/files.js';
import type { Host } from '../support/pair.js';
import { Random } from '../support/random.js';
import { StampWriter } from '../support/stamp-writer.js';
import { DiscardWriter } from './discard-writer.js';

/** Stamped writes, blocks written and discarded, data that nobody writes, a hole. */
const STAMP_BYTES = 4 * MiB;
const DISCARD_BYTES = 4 * MiB;
const STILL_BYTES = 8 * MiB;
export const STILL_OFFSET = STAMP_BYTES + DISCARD_BYTES;
const IMAGE_BYTES = STILL_OFFSET + STILL_BYTES + 16 * MiB;

interface Disk {
  readonly name: string;
  readonly stamps: StampWriter;
  readonly discards: DiscardWriter;
}

export class ChaosGuest {
  readonly #disks: readonly Disk[];

  private constructor(disks: readonly Disk[]) {
    this.#disks = disks;
  }

  static make(host: Host, name: string, count: number, random: Random): ChaosGuest {
    const disks = Array.from({ length: count }, (_, index) => {
      const image = `${name}-${index}.raw`;
      const still = [{ offset: STILL_OFFSET, length: STILL_BYTES }];
      makeSparseImage(host.daemon.below(image), IMAGE_BYTES, still, random.next());
      return {
        name: image,
        stamps: new StampWriter({ offset: 0, length: STAMP_BYTES }, random.next()),
        discards: new DiscardWriter(
          { offset: STAMP_BYTES, length: DISCARD_BYTES },
          new Random(random.next()),
        ),
      };
    });
    return new ChaosGuest(disks);
  }

  get images(): string[] {
    return this.#disks.map(({ name }) => name);
  }

  async start(host: Host): Promise<void> {
    for (const { name, stamps, discards } of this.#disks) {
      await stamps.start(host.daemon.at(name), 1);
      await discards.start(host.daemon.at(name));
    }
  }

  async stop(): Promise<void> {
    await Promise.all(
      this.#disks.map(({ stamps, discards }) => Promise.all([stamps.stop(), discards.stop()])),
    );
  }

  /** Errors that writers have met. */
  get refusals(): string[] {
    const codes = this.#disks.flatMap(({ stamps, discards }) => [
      stamps.refusal?.code ?? '',
      discards.refusal,
    ]);
    return [...new Set(codes.filter((code) => code !== ''))];
  }

  get writes(): number {
    return this.#disks.reduce((sum, { stamps }) => sum + stamps.writes, 0);
  }

  /** What is missing of that which was acknowledged. Takes paths of images. */
  async lost(path: (image: string) => string): Promise<string[]> {
    const found: string[] = [];
    for (const { name, stamps, discards } of this.#disks) {
      const { lost } = await stamps.check(path(name));
      const all = [...lost, ...(await discards.check(path(name)))];
      if (all.length > 0) found.push(`${name}: ${all.length} lost: ${all.slice(0, 3).join('; ')}`);
    }
    return found;
  }

  async remove(host: Host): Promise<void> {
    for (const { name } of this.#disks) await rm(host.daemon.at(name), { force: true });
  }
}
