/** What a source of hot spots asks of the host's network. */
import type { BytesPerSecond } from '../../leaves/units.js';

/** Bytes since the interface came up. */
export interface InterfaceCounters {
  readonly received: number;
  readonly sent: number;
}

export interface NetworkInterfaces {
  /** Of every interface but loopback, by name. */
  counters(): ReadonlyMap<string, InterfaceCounters>;
  /** Of one direction; undefined where nothing true is known: no carrier, or a virtual interface. */
  speed(name: string): BytesPerSecond | undefined;
  /** Interfaces that this one is made of: ports of a bridge, members of a bond, what a VLAN is on. */
  below(name: string): readonly string[];
  /** The interface towards `host`, a name or an address. Rejects when there is none, or the signal aborts. */
  towards(host: string, signal: AbortSignal): Promise<string>;
}
