import type { BytesPerSecond, Millis } from './units.js';

/** A link of the network by its name in the topology (`host-a`, `tor3`), in its busier direction. */
export interface LinkLoad {
  readonly link: string;
  /** When it was measured, or alerted: wall clock. */
  readonly at: Millis;
  /** Above the upper threshold, and not yet below the lower one since. */
  readonly saturated: boolean;
  /** Bytes per second that cross it, whoever sends them; absent where only an alert is known. */
  readonly rate?: number;
  readonly capacity?: BytesPerSecond;
  /**
   * Saturated, and not by migrations of this host alone: others want the link. The same as `saturated` where the part
   * of migrations is not known.
   */
  readonly hot: boolean;
  /** Where this comes from, for people: `interface eth0`, `prometheus query tor`, `alert TorSaturated`. */
  readonly source: string;
}

/** Who knows which links are saturated. */
export interface HotSpots {
  /** The newest of each link that is known. What is older than it is good for is left out. */
  loads(): readonly LinkLoad[];
  /** Calls `listener` when a link becomes saturated or hot, or stops being so; returns the unsubscribe. */
  watch(listener: (load: LinkLoad) => void): () => void;
}
