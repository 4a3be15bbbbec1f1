/** What a broker sees of the world: one migration, its peers, and nothing else. */
import type { BackOffAnswer, BackOffRequest, Sharer } from '../leaves/broker.js';
import type { HotSpots } from '../leaves/hot-spots.js';
import type { BytesPerSecond } from '../leaves/units.js';
import type { Observation } from './policy/decision.js';

/**
 * The migration of one broker: a look and two throttles. Every method rejects with a `MigrateFsError`, or with the
 * signal's reason once it aborts.
 */
export interface ControlPoints {
  /** `ended`: in a final state, or forgotten. */
  observe(signal: AbortSignal): Promise<Observation | 'ended'>;
  /** The broker's limit; the operator's stays, and the lower one counts. */
  setNetworkLimit(limit: BytesPerSecond, signal: AbortSignal): Promise<void>;
  setDiskLimit(limit: BytesPerSecond, signal: AbortSignal): Promise<void>;
}

/** The brokers of other daemons. */
export interface Peers {
  backOff(sharer: Sharer, request: BackOffRequest, signal: AbortSignal): Promise<BackOffAnswer>;
}

/** Hot spots, and which link of this host leads to another one. */
export interface LocalHotSpots extends HotSpots {
  /** Undefined: none that counts, such as loopback. `host` is a name or an address. */
  linkTowards(host: string): string | undefined;
}
