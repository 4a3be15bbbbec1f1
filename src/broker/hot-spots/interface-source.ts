/** The interfaces of this host as links: their counters against their speed. */
import type { Clock } from '../../leaves/clock.js';
import type { LogSink } from '../../leaves/log-sink.js';
import type { BytesPerSecond, Millis } from '../../leaves/units.js';
import { millis } from '../../leaves/units.js';
import type { InterfacesConfig } from './config.js';
import { InterfaceMeter } from './interface-meter.js';
import type { LinkBoard } from './link-board.js';
import type { LinkThresholds } from './link-state.js';
import type { InterfaceCounters, NetworkInterfaces } from './network-interfaces.js';
import type { OwnTraffic, PeerTraffic } from './own-traffic.js';
import { Routes } from './routes.js';

interface InterfaceSourceOptions {
  readonly config: InterfacesConfig;
  readonly thresholds: LinkThresholds;
  readonly interfaces: NetworkInterfaces;
  readonly ownTraffic: OwnTraffic;
  readonly board: LinkBoard;
  readonly clock: Clock;
  readonly log: LogSink;
}

interface Watched {
  readonly link: string;
  readonly capacity: BytesPerSecond;
}

/** A speed changes with its cable, and interfaces come and go. */
const REFRESH = millis(30_000);
/** A reading counts for so many intervals, and for so long at least. */
const STALE_INTERVALS = 4;
const STALE_MIN = millis(3000);
const WATCHED_MAX = 256;
/** Bridges on VLANs on bonds. */
const DEPTH_MAX = 8;

const NOTHING: InterfaceCounters = { sent: 0, received: 0 };

export class InterfaceSource implements Disposable {
  readonly #options: InterfaceSourceOptions;
  readonly #staleAfter: Millis;
  readonly #ending = new AbortController();
  readonly #routes: Routes;
  readonly #meters = new Map<string, InterfaceMeter>();
  #watched: ReadonlyMap<string, Watched> = new Map();
  #refreshDue: Millis = millis(0);
  readonly #unknown = new Set<string>();
  #failing = false;
  #stopTimer: () => void = () => {};

  constructor(options: InterfaceSourceOptions) {
    this.#options = options;
    this.#staleAfter = millis(Math.max(STALE_MIN, STALE_INTERVALS * options.config.interval));
    this.#routes = new Routes(options.interfaces, { ...options, signal: this.#ending.signal });
    this.#tick();
  }

  /**
   * The link of this host that leads to `host`, a name or an address. Undefined: loopback, or not known yet; the first
   * question starts the look-up.
   */
  linkTowards(host: string): string | undefined {
    const name = this.#routes.towards(host);
    if (name === undefined || name === 'lo') return undefined;
    const watched = this.#watchedBelow(name);
    return watched === undefined ? name : this.#watched.get(watched)!.link;
  }

  [Symbol.dispose](): void {
    this.#ending.abort();
    this.#stopTimer();
  }

  #tick(): void {
    const { clock, config, log } = this.#options;
    try {
      this.#look();
      this.#failing = false;
    } catch (error) {
      if (!this.#failing)
        log('warn', `cannot read the counters of the interfaces: ${(error as Error).message}`);
      this.#failing = true;
    }
    this.#stopTimer = clock.after(config.interval, () => this.#tick());
  }

  #look(): void {
    const { clock, config, interfaces, thresholds, board } = this.#options;
    const counters = interfaces.counters();
    const at = clock.now();
    if (this.#refreshDue <= at) this.#refresh(counters, at);
    const own = this.#ownByInterface();
    for (const [name, { link, capacity }] of this.#watched) {
      const count = counters.get(name);
      if (!count) continue;
      let meter = this.#meters.get(name);
      if (!meter) {
        meter = new InterfaceMeter({ window: config.window, thresholds, staleAfter: this.#staleAfter });
        this.#meters.set(name, meter);
      }
      const reading = meter.read(at, count, capacity, own(name));
      if (!reading) continue;
      const load = { link, at: clock.wall(), capacity, source: `interface ${name}`, ...reading };
      board.report(`interface ${name}`, { load, evidence: 'measured-apart' }, this.#staleAfter);
    }
  }

  /** Finds out anew what is watched. */
  #refresh(counters: ReadonlyMap<string, InterfaceCounters>, at: Millis): void {
    const { config, interfaces, log } = this.#options;
    const watched = new Map<string, Watched>();
    const candidates = new Set([...config.links.keys(), ...(config.automatic ? counters.keys() : [])]);
    for (const name of candidates) {
      const named = config.links.get(name);
      const capacity = named?.capacity ?? (counters.has(name) ? interfaces.speed(name) : undefined);
      if (capacity !== undefined && watched.size < WATCHED_MAX)
        watched.set(name, { link: named?.link ?? name, capacity });
      else if (named && !this.#unknown.has(name)) {
        this.#unknown.add(name);
        log('warn', `the speed of ${name} is not known: give a capacity for it under interfaces.links`);
      }
    }
    for (const name of this.#meters.keys()) if (!watched.has(name)) this.#meters.delete(name);
    if (this.#refreshDue === 0)
      log(
        'info',
        watched.size > 0
          ? 'interfaces are watched for saturation'
          : 'no interface has a known speed, so none is watched for saturation: give capacities (--hot-spots)',
        { interfaces: [...watched].map(([name, { link, capacity }]) => ({ name, link, capacity })) },
      );
    this.#watched = watched;
    this.#refreshDue = millis(at + REFRESH);
  }

  /** The nearest watched interface that `name` is, or is made of. */
  #watchedBelow(name: string): string | undefined {
    let level = [name];
    for (let depth = 0; depth < DEPTH_MAX && level.length > 0; depth++) {
      const found = level.find((one) => this.#watched.has(one));
      if (found !== undefined) return found;
      level = level.flatMap((one) => this.#options.interfaces.below(one));
    }
    return undefined;
  }

  /** Adds up what migrations send and receive; what cannot be told apart may cross every interface. */
  #ownByInterface(): (name: string) => InterfaceCounters {
    const sums = new Map<string, InterfaceCounters>();
    const anywhere: PeerTraffic[] = [];
    const add = (name: string, traffic: InterfaceCounters): void => {
      const sum = sums.get(name) ?? NOTHING;
      sums.set(name, { sent: sum.sent + traffic.sent, received: sum.received + traffic.received });
    };
    for (const traffic of this.#options.ownTraffic()) {
      const route = traffic.host === undefined ? undefined : this.#routes.towards(traffic.host);
      const name = route === undefined || route === 'lo' ? route : this.#watchedBelow(route);
      if (name === undefined) anywhere.push(traffic);
      else add(name, traffic);
    }
    for (const traffic of anywhere) for (const name of this.#watched.keys()) add(name, traffic);
    return (name) => sums.get(name) ?? NOTHING;
  }
}
