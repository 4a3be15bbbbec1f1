/**
 * The policy in closed loop, in virtual time. Sizes that show the same on real daemons with a link of 20 MB/s: three
 * images of 400 MB due in 108 s (Fig. 5; a queue that is fair between connections below the shaper, or else ten times
 * the size: what TCP gives one of three by chance is as much as the thresholds do); one of 400 MB under random writes
 * of 64 KiB at 30 MB/s due in 45 s.
 */
import fc from 'fast-check';
import t from 'tap';
import type { BrokerTerms, BrokerZone } from '../../../src/leaves/broker.js';
import { bytesPerSecond, millis, UNLIMITED } from '../../../src/leaves/units.js';
import type { FluidGuest } from '../../support/fluid-guest.js';
import { changingGuest, GuestRun, steadyGuest } from '../../support/fluid-guest.js';
import type { FluidMigration, FluidOutcome, FluidSample } from '../../support/fluid-simulator.js';
import { simulate } from '../../support/fluid-simulator.js';
import { MB, termsOf } from '../../support/policy-cases.js';

const LINK = 20 * MB;
const of = ({ samples }: FluidOutcome, id: string): FluidSample[] =>
  samples.filter((sample) => sample.id === id);
const alone = (
  migration: Partial<FluidMigration>,
  terms: Partial<BrokerTerms> = {},
  link = LINK,
): FluidOutcome =>
  simulate({
    capacities: new Map([['link', link]]),
    endsAt: 200,
    migrations: [
      {
        id: 'vm',
        links: ['link'],
        size: 400 * MB,
        startsAt: 0,
        terms: termsOf({ step: bytesPerSecond(link / 10), vmmTime: millis(2_000), ...terms }),
        ...migration,
      },
    ],
  });
/** How often one of the two limits was set where there was none. */
const timesSet = (samples: readonly FluidSample[], which: 'netLimit' | 'diskLimit'): number =>
  samples.filter(({ decision }, i) => {
    const before = samples[i - 1]?.decision?.[which] ?? UNLIMITED;
    return before === UNLIMITED && (decision?.[which] ?? UNLIMITED) !== UNLIMITED;
  }).length;

t.test('three migrations on one link (Fig. 5)', async (t) => {
  const ids = ['vm0', 'vm1', 'vm2'];
  const outcome = simulate({
    capacities: new Map([['link', LINK]]),
    endsAt: 108,
    migrations: ids.map((id, i) => ({
      id,
      links: ['link'],
      size: 400 * MB,
      startsAt: 0,
      deadline: 108,
      period: 1,
      terms: termsOf({
        danger: 2 + i,
        warning: 2.5 + i,
        step: bytesPerSecond(LINK / 10),
        vmmTime: millis(1_000),
      }),
    })),
  });
  const zones = (id: string): [number, BrokerZone][] =>
    of(outcome, id).flatMap(({ at, decision }) => (decision ? [[at, decision.zone]] : []));
  const left = ids.map((id) => zones(id).find(([, zone]) => zone !== 'danger')![0]);
  const finished = ids.map((id) => outcome.finished.get(id)!);

  t.test('start in danger and leave it in the order of their thresholds, for good', async (t) => {
    for (const [i, id] of ids.entries()) {
      t.equal(zones(id)[0]![1], 'danger', `${id} starts`);
      t.notOk(
        zones(id).some(([at, zone]) => at > left[i]! && zone === 'danger'),
        `${id} does not come back`,
      );
    }
    t.ok(left[0]! < left[1]! && left[1]! < left[2]!, `${left}`);
  });
  t.test('those in danger have what the others give up', async (t) => {
    const rate = (id: string): number => of(outcome, id).find(({ at }) => at === left[2])!.rate;
    t.ok(rate('vm0') < rate('vm1') && rate('vm1') < rate('vm2'), ids.map((id) => rate(id) / MB).join());
  });
  t.test('then share the link evenly', async (t) => {
    const since = left[2]! + 8;
    const shares = ids.flatMap((id) => of(outcome, id).filter(({ at }) => at >= since && at < since + 4));
    t.ok(shares.length > 40);
    t.ok(shares.every(({ rate }) => Math.abs(rate - LINK / 3) < LINK / 100));
  });
  t.test('finish in the order that the thresholds dictate, in time', async (t) => {
    t.ok(finished[2]! < finished[1]! && finished[1]! < finished[0]!, `${finished}`);
    t.ok(finished[0]! < 108);
  });
  t.test('leave nothing of the link unused until then', async (t) => {
    t.ok(finished[0]! < (3 * 400 * MB) / LINK + 3, `${finished}`);
  });
});

t.test('other traffic makes the link hot for 40 s', async (t) => {
  const hot = (at: number): boolean => at >= 10 && at < 50;
  const outcome = simulate({
    capacities: new Map([['link', LINK]]),
    endsAt: 100,
    migrations: [
      {
        id: 'vm',
        links: ['link'],
        size: 1000 * MB,
        startsAt: 0,
        deadline: 3600,
        period: 1,
        terms: termsOf({ step: bytesPerSecond(LINK / 10), quietPeriods: 5 }),
      },
    ],
    others: [{ id: 'other', links: ['link'], weight: 1, wanted: (at) => (hot(at) ? Number.MAX_VALUE : 0) }],
  });
  const samples = of(outcome, 'vm');
  const at = (time: number): FluidSample => samples.find((sample) => sample.at === time)!;
  t.test('the migration yields within two periods, down to its floor', async (t) => {
    t.equal(at(9).rate, LINK);
    t.ok(at(13).rate <= LINK / 4, `${at(13).rate / MB}`);
    t.equal(at(20).rate, 1 * MB);
  });
  t.test('the other traffic has 90 % of what it has without any migration', async (t) => {
    const others = of(outcome, 'other').filter((sample) => hot(sample.at));
    const mean = others.reduce((sum, { rate }) => sum + rate, 0) / others.length;
    t.ok(mean >= 0.9 * LINK, `${mean / MB} MB/s`);
  });
  t.test('the migration is back within n + 1 periods, by steps', async (t) => {
    t.ok(at(53).rate > at(49).rate);
    const back = samples.find((sample) => sample.at >= 50 && sample.decision?.netLimit === UNLIMITED)!.at;
    t.ok(back <= 50 + 6, `${back}`);
    t.equal(at(back + 1).rate, LINK);
    t.equal(timesSet(samples, 'netLimit'), 1);
  });
});

t.test('a guest writes faster than the link carries', async (t) => {
  const busy = { deadline: 45, writes: () => 30 * MB };
  const without = alone(busy);
  const outcome = alone({ ...busy, period: 1 });
  const samples = of(outcome, 'vm');
  const limited = samples.filter(({ decision }) => decision && decision.diskLimit !== UNLIMITED);
  t.test('its deadline is met with the disk limit, and missed without', async (t) => {
    t.ok(outcome.finished.get('vm')! <= 45, `${outcome.finished.get('vm')}`);
    t.ok(without.finished.get('vm')! > 48, `${without.finished.get('vm')}`);
  });
  t.test('the limit comes late, is set once, and goes', async (t) => {
    t.ok(limited[0]!.at > 45 / 2, `${limited[0]!.at}`);
    t.equal(timesSet(samples, 'diskLimit'), 1);
    t.equal(samples.at(-1)!.decision!.diskLimit, UNLIMITED);
    t.ok(limited.length / 4 < 45 / 2, 'for less than half of the time');
  });
  t.test('it is left alone where there is time enough without', async (t) => {
    const lax = alone({ ...busy, deadline: 60, period: 1 });
    t.ok(lax.finished.get('vm')! <= 60);
    t.equal(timesSet(of(lax, 'vm'), 'diskLimit'), 0);
  });
});

/** `MIGRATEFS_RUNS=10000` for as many guests of each kind. */
const RUNS = Number(process.env['MIGRATEFS_RUNS'] ?? 120);
/** What a failure prints replays it. */
const given = Number(process.env['MIGRATEFS_SEED']);
/** Once released next to the end, and late or limited twice: too rare to be met in so few runs. */
const RELEASED_AT_THE_END: FluidGuest[] = [
  { link: 77, seconds: 59, vmm: 506, spare: 1.5412931604271782, stages: [{ from: 0, writes: 2 }] },
  { link: 84, seconds: 56, vmm: 508, spare: 1.3509947442914896, stages: [{ from: 0, writes: 2 }] },
];
const parameters = { numRuns: RUNS, endOnFailure: true, ...(given ? { seed: given } : {}) };

t.test(
  'property: a deadline that a constant disk limit could keep is kept, with one limit at most',
  async (t) => {
    const seen = { limited: 0, free: 0, late: 0 };
    fc.assert(
      fc.property(steadyGuest, (guest) => {
        const run = new GuestRun(guest);
        const once = run.limitedAt.length <= 1 && !run.netLimited;
        if (!run.inTime) {
          seen.late++;
          return once && !run.couldBeKept(run.firstChance(0));
        }
        seen[run.limitedAt.length > 0 ? 'limited' : 'free']++;
        return once;
      }),
      { ...parameters, examples: RELEASED_AT_THE_END.map((guest): [FluidGuest] => [guest]) },
    );
    t.ok(seen.limited > RUNS / 10 && seen.free > RUNS / 10, JSON.stringify(seen));
  },
);

t.test(
  'property: of a guest that changes what it writes too, and another limit has such a cause',
  async (t) => {
    const seen = { limited: 0, free: 0, again: 0, late: 0 };
    fc.assert(
      fc.property(changingGuest, (guest) => {
        const run = new GuestRun(guest);
        const { limitedAt, changes } = run;
        const again = limitedAt.slice(1);
        const caused = again.every((at, i) =>
          changes.some((change) => limitedAt[i]! < change && change < at),
        );
        if (again.length > 0) seen.again++;
        if (run.inTime) {
          seen[limitedAt.length > 0 ? 'limited' : 'free']++;
          return caused;
        }
        seen.late++;
        // What was decided last, or could have been after the last change.
        const decided = limitedAt.at(-1) ?? run.firstChance(changes.at(-1)!);
        return caused && !run.couldBeKept(decided);
      }),
      parameters,
    );
    t.ok(seen.limited > RUNS / 10 && seen.free > RUNS / 10, JSON.stringify(seen));
  },
);
