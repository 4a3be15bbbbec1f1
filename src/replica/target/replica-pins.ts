import { releaseAll } from './replica-files.js';
import type { TargetContext } from './target-context.js';
import type { TargetImage } from './target-image.js';

/** The pins of a migration's replicas, and how they are given back. */
export class ReplicaPins {
  readonly #context: TargetContext;
  readonly #images: readonly TargetImage[];
  readonly #onReleased: () => void;
  readonly #quiet: () => Promise<unknown>;
  #released: Promise<void> | undefined;

  /**
   * `quiet` resolves when nothing outside this thread changes or flushes the images. `onReleased` is called when the slots belong to
   * the migration no more.
   */
  constructor(
    context: TargetContext,
    images: readonly TargetImage[],
    quiet: () => Promise<unknown>,
    onReleased: () => void,
  ) {
    this.#quiet = quiet;
    this.#context = context;
    this.#images = images;
    this.#onReleased = onReleased;
  }

  /** Resolves when they have been given back; undefined as long as nobody wants that. */
  get released(): Promise<void> | undefined {
    return this.#released;
  }

  /** Resolves when what has come for the images has taken effect. */
  async drained(): Promise<void> {
    await Promise.all([this.#quiet(), ...this.#images.map((image) => image.drained())]);
  }

  /** The replicas are discarded. */
  remove(): void {
    this.#released = this.drained().then(() => this.#release(true));
  }

  /** The replicas stay, for a later migration or for a RESUME. */
  keep(): void {
    this.#released = this.drained().then(() => this.#release(false));
  }

  /** The images are this host's own: the kernel may cache them from now on, but nothing that it has from before. */
  handOver(): void {
    this.#released = this.#invalidated().then(() => this.#release(false));
  }

  async #invalidated(): Promise<void> {
    const { store, table, log } = this.#context;
    for (const { slot } of this.#images) table.setUncached(slot, false);
    for (const { slot, name } of this.#images)
      await store.invalidate(slot).catch((error: Error) => {
        log('warn', 'cannot drop cached pages', { image: name, error: error.message });
      });
  }

  /** Gives the pins back once no participant can hand over a change that it decided on under an earlier mode. */
  async #release(remove: boolean): Promise<void> {
    const { grace, turn } = this.#context;
    const slots = this.#images.map(({ slot }) => slot);
    await grace.elapsed(slots, turn);
    await turn();
    await releaseAll(this.#context, this.#images, remove);
    this.#onReleased();
  }
}
