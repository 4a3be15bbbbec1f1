/** When a broker looks next. */
import type { Clock } from '../leaves/clock.js';
import { pause } from '../leaves/clock.js';
import type { HotSpots, LinkLoad } from '../leaves/hot-spots.js';
import type { Millis } from '../leaves/units.js';

export interface NextLookOptions {
  readonly clock: Clock;
  readonly hotSpots: HotSpots;
  /** Whether what is known of a link now asks for another decision than at the last look. */
  readonly isNews: (load: LinkLoad) => boolean;
}

/**
 * A period after the look before, or at once when a link of the path becomes hot: others should not have to wait for a
 * period of a minute; or when the last one has cooled, so that quiet periods begin then. Once between two regular looks, so
 * that a link that comes and goes halves nothing more often.
 */
export class NextLook {
  readonly #options: NextLookOptions;
  #early = false;

  constructor(options: NextLookOptions) {
    this.#options = options;
  }

  /** Resolves when it is time; rejects with the signal's reason. */
  async due(period: Millis, signal: AbortSignal): Promise<void> {
    const { clock, hotSpots, isNews } = this.#options;
    const early = new AbortController();
    const note = (load: LinkLoad): void => {
      if (!this.#early && isNews(load)) early.abort();
    };
    const unwatch = hotSpots.watch(note);
    hotSpots.loads().forEach(note);
    try {
      await pause(clock, period, AbortSignal.any([signal, early.signal]));
      this.#early = false;
    } catch (error) {
      if (signal.aborted || !early.signal.aborted) throw error;
      this.#early = true;
    } finally {
      unwatch();
    }
  }
}
