/**
 * Migrations as fluids in virtual time, each with a broker that calls the real `decide()`. Deterministic: no clock, no
 * chance but what a scenario brings along. Times in seconds, rates in bytes per second.
 */
import { decide } from '../../src/broker/policy/decide.js';
import type { Congestion, Decision } from '../../src/broker/policy/decision.js';
import type { BrokerTerms } from '../../src/leaves/broker.js';
import type { MigrationState } from '../../src/leaves/migration.js';
import { millis, UNLIMITED } from '../../src/leaves/units.js';
import { FluidCopy } from './fluid-copy.js';
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
  /** Its part in the contest for a full link, 1 where absent: TCP is not always fair. */
  readonly weight?: (at: number) => number;
  /** What the guest would write at a time, at random all over the image. */
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
const SATURATED_FROM = 0.95;
const SATURATED_UNTIL = 0.85;
/** A saturated link is hot when others than migrations have at least this part of it. */
const OTHERS_PART = 0.1;
/** A request counts for this many periods of whom it comes from. */
const REQUEST_PERIODS = 2;

class Running {
  readonly copy: FluidCopy;
  nextDecision: number;
  syncedAt: number | undefined;
  completed = false;
  decision: Decision | undefined;
  /** Until when a request counts, by who asks. */
  readonly asked = new Map<string, number>();

  constructor(readonly subject: FluidMigration) {
    this.copy = new FluidCopy(subject.size);
    this.nextDecision =
      subject.period === undefined ? Number.POSITIVE_INFINITY : subject.startsAt + subject.period;
  }

  get state(): MigrationState {
    if (this.completed) return 'completed';
    const { phase } = this.copy;
    if (phase === 'in-sync') return 'mirroring';
    return phase === 'converging' ? 'dirty-resend' : phase;
  }

  writes(at: number): number {
    return Math.min(this.subject.writes?.(at) ?? 0, this.decision?.diskLimit ?? UNLIMITED);
  }

  flow(at: number): Flow {
    const { id, links, weight } = this.subject;
    const wanted = Math.min(this.copy.wanted(this.writes(at)), this.decision?.netLimit ?? UNLIMITED);
    return { id, links, wanted, weight: weight?.(at) ?? 1 };
  }

  advance(at: number, rate: number): void {
    this.copy.advance(TICK, rate, this.writes(at));
    if (this.copy.phase !== 'in-sync') return;
    this.syncedAt ??= at;
    this.completed = at - this.syncedAt >= this.subject.terms.vmmTime / 1000;
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
    const running = all.filter(({ subject, completed }) => subject.startsAt <= at && !completed);
    const others = (scenario.others ?? []).map((other) => ({ ...other, wanted: other.wanted(at) }));
    const flows = [...running.map((one) => one.flow(at)), ...others];
    const rates = sharedRates(flows, scenario.capacities);
    for (const one of running) {
      const { id } = one.subject;
      one.advance(at, rates.get(id)!);
      if (one.completed) finished.set(id, at);
    }
    links.see(flows, rates, own, scenario.capacities);
    for (const one of running) {
      if (at >= one.nextDecision && !one.completed) decideFor(one, running, links, at);
    }
    for (const { id } of flows) {
      const one = running.find(({ subject }) => subject.id === id);
      samples.push({
        at,
        id,
        rate: rates.get(id)!,
        writes: one?.writes(at) ?? 0,
        left: one?.copy.left ?? 0,
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
    { at: millis(at * 1000), state: one.state, load: one.copy.load },
    congestion,
    one.decision,
  );
  for (const other of running) {
    if (isShared(subject, other.subject, one.decision.askOn))
      other.asked.set(subject.id, at + REQUEST_PERIODS * period);
  }
};
