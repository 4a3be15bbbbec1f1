import fc from 'fast-check';
import type { PlanInput, PlanLimits, PlanTask } from '../../src/broker/policy/task.js';
import { checkTopology, type Topology } from '../../src/broker/policy/topology.js';
import { completeTerms } from '../../src/broker/terms.js';
import type { BrokerTerms } from '../../src/leaves/broker.js';
import { bytes, millis } from '../../src/leaves/units.js';

/** Noon of a day that has no other meaning. */
export const NOON = millis(Date.parse('2030-01-31T12:00:00Z'));
export const SECOND = 1000;
export const MINUTE = 60 * SECOND;
export const MB = 1e6;
export const GB = 1e9;

export const at = (fromNoon: number) => millis(NOON + fromNoon);

/** Times in milliseconds from noon; sizes in bytes. */
export interface TaskOptions extends Partial<Omit<PlanTask, 'left' | 'allocated' | 'terms'>> {
  readonly left?: number;
  readonly allocated?: number;
  readonly due?: number;
  readonly opens?: number;
  readonly terms?: Partial<BrokerTerms>;
}

export const task = (id: string, options: TaskOptions = {}): PlanTask => {
  const { left, allocated, due, opens, terms, ...others } = options;
  return {
    id,
    source: 'a',
    target: 'b',
    dirtyRate: 0,
    submittedAt: NOON,
    priority: 0,
    state: 'waiting',
    ...others,
    left: bytes(left ?? 6 * GB),
    ...(allocated !== undefined && { allocated: bytes(allocated) }),
    ...(due !== undefined && { deadline: at(due) }),
    ...(opens !== undefined && { notBefore: at(opens) }),
    terms: completeTerms({ vmmTime: millis(10 * SECOND), ...terms }),
  };
};

const host = (name: string, index: number) => ({
  name,
  control: `10.0.0.${index + 1}:7070`,
  data: `10.0.0.${index + 1}:7071`,
});

/** Each host with a link of its own name to one switch. */
export const star = (names: readonly string[], capacity = '100MB/s'): Topology =>
  checkTopology({
    hosts: names.map(host),
    switches: ['core'],
    links: names.map((name) => ({ name, between: [name, 'core'], capacity })),
  });

/** Hosts a and b at the switch `left`, c and d at `right`, and the narrower link `middle` between the switches. */
export const twoRacks = (capacity = '100MB/s', middle = '100MB/s'): Topology =>
  checkTopology({
    hosts: ['a', 'b', 'c', 'd'].map(host),
    switches: ['left', 'right'],
    links: [
      { name: 'middle', between: ['left', 'right'], capacity: middle },
      ...['a', 'b'].map((name) => ({ name, between: [name, 'left'], capacity })),
      ...['c', 'd'].map((name) => ({ name, between: [name, 'right'], capacity })),
    ],
  });

/** By rack its hosts, of one letter each; every rack with a link of its name to one switch. */
export const racks = (hosts: Readonly<Record<string, string>>, capacity = '100MB/s'): Topology =>
  checkTopology({
    hosts: [...Object.values(hosts).join('')].map(host),
    switches: ['core', ...Object.keys(hosts).map((rack) => `tor-${rack}`)],
    links: Object.entries(hosts).flatMap(([rack, names]) => [
      { name: rack, between: [`tor-${rack}`, 'core'], capacity },
      ...[...names].map((name) => ({ name, between: [name, `tor-${rack}`], capacity })),
    ]),
  });

/** One link between a and b. */
export const oneLink = (capacity = '100MB/s'): Topology =>
  checkTopology({ hosts: ['a', 'b'].map(host), links: [{ name: 'ab', between: ['a', 'b'], capacity }] });

export const NO_LIMITS: PlanLimits = { perHost: 1_000_000, perLink: 1_000_000, share: 1 };

export const input = (
  tasks: readonly PlanTask[],
  options: Partial<PlanInput> & { readonly now?: number } = {},
): PlanInput => ({
  now: NOON,
  tasks,
  paths: oneLink(),
  loads: [],
  limits: NO_LIMITS,
  ...options,
});

/** Tasks between some of `hosts`, from seconds to an hour long at 100 MB/s, with and without windows and deadlines. */
export const anyTask = (id: string, hosts: readonly string[]): fc.Arbitrary<PlanTask> =>
  fc
    .record({
      ends: fc.shuffledSubarray([...hosts], { minLength: 2, maxLength: 2 }),
      gigabytes: fc.integer({ min: 1, max: 60 }),
      dirty: fc.constantFrom(0, 0, 1, 20, 120),
      opens: fc.option(fc.integer({ min: -10, max: 60 }), { nil: undefined }),
      due: fc.oneof(
        fc.integer({ min: -2, max: 20 }),
        fc.integer({ min: 5, max: 180 }),
        fc.constant(undefined),
      ),
      priority: fc.integer({ min: 0, max: 9 }),
      age: fc.integer({ min: 0, max: 200 }),
      state: fc.constantFrom('waiting' as const, 'waiting' as const, 'running' as const),
      important: fc.constantFrom(false, false, false, true),
    })
    .map(({ ends, gigabytes, dirty, opens, due, priority, age, state, important }) =>
      task(id, {
        source: ends[0]!,
        target: ends[1]!,
        left: gigabytes * GB,
        dirtyRate: dirty * MB,
        priority,
        state,
        submittedAt: at(-age * MINUTE),
        ...(opens !== undefined && { opens: opens * MINUTE }),
        ...(due !== undefined ? { due: due * MINUTE } : age % 4 === 0 && { late: true }),
        terms: { important },
      }),
    );

export const anyTasks = (hosts: readonly string[], maxLength: number): fc.Arbitrary<PlanTask[]> =>
  fc
    .integer({ min: 1, max: maxLength })
    .chain((count) => fc.tuple(...Array.from({ length: count }, (_, i) => anyTask(`t${i}`, hosts))));

/** Waiting tasks with little more time than they need, which stand in each other's way. */
export const anyTightTasks = (hosts: readonly string[], maxLength: number): fc.Arbitrary<PlanTask[]> =>
  fc
    .tuple(
      anyTasks(hosts, maxLength),
      fc.array(fc.integer({ min: 100, max: 500 }), { minLength: maxLength, maxLength }),
    )
    .map(([tasks, percent]) =>
      tasks.map((each, i) => {
        const needs = (each.left / (100 * MB - 1 * MB)) * SECOND + each.terms.vmmTime;
        const due = Math.ceil(Math.max(NOON, each.notBefore ?? 0) + (needs * percent[i]!) / 100);
        return {
          ...each,
          state: 'waiting' as const,
          terms: { ...each.terms, danger: percent[i]! % 2 === 0 ? 1.1 : each.terms.danger },
          ...(each.deadline !== undefined && { deadline: millis(due) }),
        };
      }),
    );
