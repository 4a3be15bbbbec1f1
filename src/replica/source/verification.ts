import type { ErrorCode } from '../../leaves/errors.js';
import { MigrateFsError } from '../../leaves/errors.js';
import type { VerifyReport } from '../../leaves/migration.js';
import type { BufferPool } from './buffer-pool.js';
import type { ImageGroup } from './image-group.js';
import type { SourceWire } from './source-wire.js';
import { verifyImage } from './verify.js';

export interface VerificationOptions {
  readonly group: ImageGroup;
  readonly wire: SourceWire;
  readonly buffers: BufferPool;
  /** Data address, for messages. */
  readonly target: string;
}

/** The comparisons of one migration, which end when both sides may differ. */
export class Verification {
  readonly #options: VerificationOptions;
  #running = new AbortController();

  constructor(options: VerificationOptions) {
    this.#options = options;
  }

  /** Compares the image of that name, or all. UNAVAILABLE: the target was lost. Rejects with the reason of `stop`. */
  run(name: string | undefined): Promise<VerifyReport[]> {
    return this.#options.group.using(this.#compare(name, this.#running.signal));
  }

  /** Both sides are not the same from here on, or not to be looked at. */
  stop(why: string, code: ErrorCode = 'FAILED_PRECONDITION'): void {
    this.#running.abort(new MigrateFsError(code, `comparing ended: ${why}`));
    this.#running = new AbortController();
  }

  async #compare(name: string | undefined, signal: AbortSignal): Promise<VerifyReport[]> {
    const { group, wire, buffers, target } = this.#options;
    const reports: VerifyReport[] = [];
    for (const image of group.images) {
      if (name !== undefined && image.name !== name) continue;
      const report = await verifyImage(image, wire, buffers, signal);
      if (!report) throw new MigrateFsError('UNAVAILABLE', `${target} was lost while comparing`);
      reports.push(report);
    }
    return reports;
  }
}
