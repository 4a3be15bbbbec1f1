/** A migration with its broker, as both are seen over time. */
import type { BrokerSnapshot, BrokerZone } from '../../src/leaves/broker.js';
import { isFinal } from '../../src/leaves/migration.js';
import { type Followed, type Host, migrate, type Pair, type StartSettings } from '../support/pair.js';
import type { Teardown } from '../support/scratch.js';

const LOOK_MS = 200;

export interface ZoneChange {
  /** Seconds after its start. */
  readonly at: number;
  readonly zone: BrokerZone;
}

export class Managed {
  readonly migration: Followed;
  /** In order; the first one is the first that was decided. */
  readonly zones: ZoneChange[] = [];
  #broker: BrokerSnapshot | undefined;
  readonly #began = performance.now();
  #syncedAfter: number | undefined;

  private constructor(t: Teardown, source: Host, migration: Followed) {
    this.migration = migration;
    let looking = false;
    const timer = setInterval(() => {
      if (looking) return;
      looking = true;
      this.#look(source)
        // A migration without a broker, or that has ended.
        .catch(() => undefined)
        .finally(() => {
          looking = false;
        });
    }, LOOK_MS);
    t.teardown(() => clearInterval(timer));
    void migration
      .until(({ state }) => state === 'mirroring' || state === 'cutover' || isFinal(state), 600_000)
      .then(() => {
        this.#syncedAfter = this.age;
      })
      .catch(() => undefined);
  }

  static async start(
    t: Teardown,
    pair: Pair,
    images: readonly string[],
    settings: StartSettings,
  ): Promise<Managed> {
    return new Managed(t, pair.source, await migrate(t, pair, images, settings));
  }

  /** What its broker reported last. */
  get broker(): BrokerSnapshot | undefined {
    return this.#broker;
  }

  /** Seconds since it was started. */
  get age(): number {
    return (performance.now() - this.#began) / 1000;
  }

  /** Seconds from its start until in sync. */
  get syncedAfter(): number | undefined {
    return this.#syncedAfter;
  }

  /** Seconds from its start until it left danger for good; undefined: it was not in danger, or still is. */
  get leftDangerAfter(): number | undefined {
    const entered = this.zones.findLastIndex(({ zone }) => zone === 'danger');
    return entered < 0 ? undefined : this.zones[entered + 1]?.at;
  }

  /** For charts: nothing once it has ended. */
  get bytesSent(): number | undefined {
    return isFinal(this.migration.last.state) ? undefined : this.migration.last.bytesSent;
  }

  async #look(source: Host): Promise<void> {
    const broker = await source.client.broker(this.migration.id);
    if (broker.ended) return;
    this.#broker = broker;
    if (broker.decisions === 0 || this.zones.at(-1)?.zone === broker.zone) return;
    this.zones.push({ at: this.age, zone: broker.zone });
  }
}
