/**
 * Migrations as fluids in virtual time, each with a broker that calls the real `decide()`. Deterministic: no clock, no
 * chance but what a scenario brings along. Times in seconds, rates in bytes per second.
 */
import { decide } from '../../src/broker/policy/decide.js';
import type { Congestion, Decision } from '../../src/broker/policy/decision.js';
import type { BrokerTerms } from '../../src/leaves/broker.js';
import type { MigrationState } from '../../src/leaves/migration.js';
import type { TransferLoad } from '../../src/leaves/time-left.js';
import { bytes, millis, UNLIMITED } from '../../src/leaves/units.js';
import type { Flow } from './fluid-link.js';
import { sharedRates } from './fluid-link.js';

export interface FluidMigration {
  readonly id: string;
  readonly links: readonly string[];
  readonly size: number;
  readonly startsAt: number;
  /** Seconds after the start. */
  readonly deadline?: number;
  readonly terms: BrokerTerms;
  /** Between two decisions; absent: no broker. */
  readonly period?: number;
  /** What the guest would write at a time, to random places that it seldom writes twice. */
  readonly writes?: (at: number) => number;
}

export interface OtherTraffic {
  readonly id: string;
  readonly links: readonly string[];
  readonly weight: number;
  readonly wanted: (at: number) => number;
}

export interface FluidScenario {
  readonly capacities: ReadonlyMap<string, number>;
  readonly migrations: readonly FluidMigration[];
  readonly others?: readonly OtherTraffic[];
  readonly endsAt: number;
}

export interface FluidSample {
  readonly at: number;
  readonly id: string;
  readonly rate: number;
  readonly writes: number;
  readonly left: number;
  readonly decision?: Decision;
}

export interface FluidOutcome {
  readonly samples: readonly FluidSample[];
  /** When the hypervisor was done, by id; absent: not within the scenario. */
  readonly finished: ReadonlyMap<string, number>;
}

const TICK = 0.25;
/** As in the replica: what happened this long ago counts 1/e. */
const SMOOTHING = 2;
/** In sync when less than this part of the image is left. */
const IN_SYNC = 1 / 4096;
const SATURATED_FROM = 0.95;
const SATURATED_UNTIL = 0.85;
/** A saturated link is hot when others than migrations have at least this part of it. */
const OTHERS_PART = 0.1;
/** A request counts for this many periods of whom it comes from. */
const REQUEST_PERIODS = 2;

class Running {
  state: MigrationState = 'bulk-copy';
  left: number;
  written = 0;
  netRate = 0;
  dirtyRate = 0;
  writeRate = 0;
  nextDecision: number;
  syncedAt: number | undefined;
  decision: Decision | undefined;
  /** Until when a request counts, by who asks. */
  readonly asked = new Map<string, number>();

  constructor(readonly subject: FluidMigration) {
    this.left = subject.size;
    this.nextDecision =
      subject.period === undefined ? Number.POSITIVE_INFINITY : subject.startsAt + subject.period;
  }

  get load(): TransferLoad {
    return {
      left: bytes(Math.round(this.left)),
      allocated: bytes(this.subject.size),
      netRate: this.netRate,
      dirtyRate: this.dirtyRate,
      writeRate: this.writeRate,
      netDeviation: 0,
      dirtyDeviation: 0,
      converging: this.state === 'mirroring',
    };
  }

  writes(at: number): number {
    return Math.min(this.subject.writes?.(at) ?? 0, this.decision?.diskLimit ?? UNLIMITED);
  }

  flow(at: number): Flow {
    const wanted = this.state === 'mirroring' ? this.writes(at) : Number.MAX_VALUE;
    const { id, links } = this.subject;
    return { id, links, wanted: Math.min(wanted, this.decision?.netLimit ?? UNLIMITED), weight: 1 };
  }

  advance(at: number, rate: number): void {
    const { size, startsAt, terms } = this.subject;
    const writes = this.writes(at);
    // Only a clean block can become dirty.
    const dirty = this.state === 'mirroring' ? 0 : writes * (1 - this.left / size);
    // Divided by what was really seen, as the replica's meter does.
    const seen = 1 - Math.exp(-(at + TICK - startsAt) / SMOOTHING);
    const weight = (1 - Math.exp(-TICK / SMOOTHING)) / seen;
    this.netRate += weight * (rate - this.netRate);
    this.dirtyRate += weight * (dirty - this.dirtyRate);
    this.writeRate += weight * (writes - this.writeRate);
    if (this.state === 'mirroring') {
      if (at - this.syncedAt! >= terms.vmmTime / 1000) this.state = 'completed';
      return;
    }
    this.left = Math.min(Math.max(0, this.left + (dirty - rate) * TICK), size);
    if (this.left > size * IN_SYNC) return;
    this.left = 0;
    this.state = 'mirroring';
    this.syncedAt = at;
  }
}

class LinkStates {
  readonly #saturated = new Set<string>();
  readonly #hot = new Set<string>();

  see(
    flows: readonly Flow[],
    rates: ReadonlyMap<string, number>,
    own: ReadonlySet<string>,
    capacities: ReadonlyMap<string, number>,
  ): void {
    for (const [link, capacity] of capacities) {
      const crossing = flows.filter(({ links }) => links.includes(link));
      const sum = (list: readonly Flow[]): number =>
        list.reduce((total, { id }) => total + rates.get(id)!, 0);
      const load = sum(crossing) / capacity;
      if (load >= SATURATED_FROM) this.#saturated.add(link);
      else if (load < SATURATED_UNTIL) this.#saturated.delete(link);
      const others = sum(crossing.filter(({ id }) => !own.has(id))) / capacity;
      if (this.#saturated.has(link) && others >= OTHERS_PART) this.#hot.add(link);
      else this.#hot.delete(link);
    }
  }

  saturated(links: readonly string[]): readonly string[] {
    return links.filter((link) => this.#saturated.has(link));
  }

  hot(links: readonly string[]): readonly string[] {
    return links.filter((link) => this.#hot.has(link));
  }
}

const isShared = (one: FluidMigration, other: FluidMigration, links: readonly string[]): boolean =>
  one.id !== other.id && links.some((link) => other.links.includes(link));

export const simulate = (scenario: FluidScenario): FluidOutcome => {
  const all = scenario.migrations.map((subject) => new Running(subject));
  const own = new Set(all.map(({ subject }) => subject.id));
  const links = new LinkStates();
  const samples: FluidSample[] = [];
  const finished = new Map<string, number>();
  for (let at = 0; at < scenario.endsAt; at += TICK) {
    const running = all.filter(({ subject, state }) => subject.startsAt <= at && state !== 'completed');
    const others = (scenario.others ?? []).map((other) => ({ ...other, wanted: other.wanted(at) }));
    const flows = [...running.map((one) => one.flow(at)), ...others];
    const rates = sharedRates(flows, scenario.capacities);
    for (const one of running) {
      const { id } = one.subject;
      one.advance(at, rates.get(id)!);
      if (one.state === 'completed') finished.set(id, at);
    }
    links.see(flows, rates, own, scenario.capacities);
    for (const one of running) {
      if (at >= one.nextDecision && one.state !== 'completed') decideFor(one, running, links, at);
    }
    for (const { id } of flows) {
      const one = running.find(({ subject }) => subject.id === id);
      samples.push({
        at,
        id,
        rate: rates.get(id)!,
        writes: one?.writes(at) ?? 0,
        left: one?.left ?? 0,
        ...(one?.decision ? { decision: one.decision } : {}),
      });
    }
  }
  return { samples, finished };
};

const decideFor = (one: Running, running: readonly Running[], links: LinkStates, at: number): void => {
  const { subject } = one;
  const period = subject.period!;
  one.nextDecision = at + period;
  const congestion: Congestion = {
    hotLinks: links.hot(subject.links),
    saturatedLinks: links.saturated(subject.links),
    askedBy: [...one.asked].filter(([, until]) => until > at).map(([id]) => id),
  };
  one.decision = decide(
    {
      terms: subject.terms,
      ...(subject.deadline === undefined
        ? {}
        : { deadline: millis((subject.startsAt + subject.deadline) * 1000) }),
    },
    { at: millis(at * 1000), state: one.state, load: one.load },
    congestion,
    one.decision,
  );
  for (const other of running) {
    if (isShared(subject, other.subject, one.decision.askOn))
      other.asked.set(subject.id, at + REQUEST_PERIODS * period);
  }
};
