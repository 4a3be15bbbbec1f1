/** What all sources say of all links, and the one answer that comes of it. */
import type { Clock } from '../../leaves/clock.js';
import type { HotSpots, LinkLoad } from '../../leaves/hot-spots.js';
import type { LogSink } from '../../leaves/log-sink.js';
import { formatRate } from '../../leaves/quantity.js';
import type { Millis } from '../../leaves/units.js';
import { millis } from '../../leaves/units.js';

/**
 * What stands behind a report. `alert`: somebody else has judged, and is believed. `measured-apart`: the part of this
 * host's migrations was taken out. `measured`: it could not be.
 */
export type Evidence = 'alert' | 'measured-apart' | 'measured';

export interface Report {
  readonly load: LinkLoad;
  readonly evidence: Evidence;
}

interface Kept extends Report {
  /** Monotonic. */
  readonly until: Millis;
}

/** Links of all sources together, and sources of one link. */
const LINKS_MAX = 4096;
const REPORTS_MAX = 64;
const SWEEP_INTERVAL = millis(1000);

const rank = ({ saturated, hot }: LinkLoad): number => (hot ? 2 : saturated ? 1 : 0);

/**
 * One load of several reports on the same link: the worst counts, then the newest. A mere measurement does not make a
 * link hot of which another source knows that this host's own migrations fill it.
 */
export const mergedLoad = (reports: readonly Report[]): LinkLoad | undefined => {
  const own = reports.some(
    ({ evidence, load }) => evidence === 'measured-apart' && load.saturated && !load.hot,
  );
  let best: LinkLoad | undefined;
  for (const { load, evidence } of reports) {
    const judged = own && evidence === 'measured' ? { ...load, hot: false } : load;
    const better = best === undefined || rank(judged) > rank(best);
    if (better || (rank(judged) === rank(best!) && judged.at > best!.at)) best = judged;
  }
  return best;
};

const inWords = ({ saturated, hot, rate, capacity, source }: LinkLoad): string => {
  const state = hot
    ? 'hot'
    : saturated
      ? 'saturated by migrations of this host'
      : 'neither hot nor saturated';
  const of = capacity === undefined ? '' : ` of ${formatRate(capacity)}`;
  return `${state}${rate === undefined ? '' : `, ${formatRate(rate)}${of}`} (${source})`;
};

export class LinkBoard implements HotSpots, Disposable {
  readonly #clock: Clock;
  readonly #log: LogSink;
  readonly #links = new Map<string, Map<string, Kept>>();
  /** What was said last of links that are not cool. */
  readonly #announced = new Map<string, LinkLoad>();
  readonly #listeners = new Set<(load: LinkLoad) => void>();
  #stopSweep: () => void = () => {};
  #full = false;

  constructor(clock: Clock, log: LogSink) {
    this.#clock = clock;
    this.#log = log;
    this.#sweep();
  }

  /** Takes what `source` says now; it counts for `goodFor`, or until `source` reports or withdraws the link. */
  report(source: string, report: Report, goodFor: Millis): void {
    const { link } = report.load;
    const known = this.#links.get(link) ?? new Map<string, Kept>();
    const full = known.size === 0 ? this.#links.size >= LINKS_MAX : known.size >= REPORTS_MAX;
    if (full && !known.has(source)) {
      this.#refuse(report.load);
      return;
    }
    known.set(source, { ...report, until: millis(this.#clock.now() + goodFor) });
    this.#links.set(link, known);
    this.#announce(link);
  }

  withdraw(source: string, link: string): void {
    const known = this.#links.get(link);
    if (!known?.delete(source)) return;
    if (known.size === 0) this.#links.delete(link);
    this.#announce(link);
  }

  loads(): readonly LinkLoad[] {
    const loads: LinkLoad[] = [];
    for (const link of this.#links.keys()) {
      const load = this.#current(link);
      if (load) loads.push(load);
    }
    return loads;
  }

  watch(listener: (load: LinkLoad) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  [Symbol.dispose](): void {
    this.#stopSweep();
    this.#listeners.clear();
    this.#links.clear();
  }

  #current(link: string): LinkLoad | undefined {
    const now = this.#clock.now();
    return mergedLoad([...(this.#links.get(link)?.values() ?? [])].filter(({ until }) => until > now));
  }

  /** Tells when a link is in another state than was told last; one that is not known any more counts as cool. */
  #announce(link: string): void {
    const before = this.#announced.get(link);
    const load = this.#current(link);
    if ((load ? rank(load) : 0) === (before ? rank(before) : 0)) return;
    const told: LinkLoad = load ?? { ...before!, at: this.#clock.wall(), saturated: false, hot: false };
    if (rank(told) === 0) this.#announced.delete(link);
    else this.#announced.set(link, told);
    this.#log(
      'info',
      `link ${link}: ${load ? inWords(told) : `nothing is known of it any more (${told.source})`}`,
      {
        link,
        hot: told.hot,
        saturated: told.saturated,
      },
    );
    for (const listener of this.#listeners) listener(told);
  }

  #sweep(): void {
    const now = this.#clock.now();
    for (const [link, known] of this.#links) {
      for (const [source, { until }] of known) if (until <= now) known.delete(source);
      if (known.size === 0) this.#links.delete(link);
      this.#announce(link);
    }
    this.#stopSweep = this.#clock.after(SWEEP_INTERVAL, () => this.#sweep());
  }

  #refuse({ link, source }: LinkLoad): void {
    if (this.#full) return;
    this.#full = true;
    this.#log(
      'warn',
      `more links or sources than ${LINKS_MAX} links with ${REPORTS_MAX} sources each; ${link} (${source}) and others are left out`,
    );
  }
}
