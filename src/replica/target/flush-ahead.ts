import type { Clock } from '../../leaves/clock.js';
import type { Millis } from '../../leaves/units.js';
import { millis } from '../../leaves/units.js';

/** Between two looks, and so what a disk has at most left to do: it is this far behind the source. */
const LOOK_INTERVAL: Millis = millis(1_000);

/** A replica, and how often it has been changed. */
interface Flushed {
  readonly changes: number;
  readonly file: { datasync(): Promise<void> };
}

export interface FlushAheadOptions {
  readonly clock: Clock;
  readonly images: () => readonly Flushed[];
  /** A flush has failed: the kernel may have dropped what it could not write. */
  readonly failed: (index: number, error: unknown) => void;
}

/**
 * Flushes replicas while they are received. Left to the kernel, a tenth of the memory may be waiting for the disk at the
 * cutover, and the guest's first write with it.
 */
export class FlushAhead {
  readonly #options: FlushAheadOptions;
  #forgetLook: () => void = () => {};
  #running: Promise<void> | undefined;
  /** Changes to all images that are flushed, or are being. */
  #flushed = 0;

  constructor(options: FlushAheadOptions) {
    this.#options = options;
  }

  /** From now on, until `stop`. */
  start(): void {
    this.#forgetLook();
    this.#forgetLook = this.#options.clock.after(LOOK_INTERVAL, () => {
      this.flush();
      this.start();
    });
  }

  stop(): void {
    this.#forgetLook();
  }

  /** Now, unless one is under way already or there is nothing to flush. */
  flush(): void {
    const { images } = this.#options;
    const changes = images().reduce((sum, image) => sum + image.changes, 0);
    if (this.#running || changes === this.#flushed) return;
    this.#flushed = changes;
    this.#running = this.#flushAll().finally(() => {
      this.#running = undefined;
    });
  }

  /** Resolves when none is under way. */
  get idle(): Promise<void> {
    return this.#running ?? Promise.resolve();
  }

  async #flushAll(): Promise<void> {
    const { images, failed } = this.#options;
    await Promise.all(
      images().map(({ file }, index) => file.datasync().catch((error: unknown) => failed(index, error))),
    );
  }
}
