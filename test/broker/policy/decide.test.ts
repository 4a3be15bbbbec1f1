import fc from 'fast-check';
import t from 'tap';
import { decide } from '../../../src/broker/policy/decide.js';
import type { Case, Congestion, Decision, Observation } from '../../../src/broker/policy/decision.js';
import { isFinal } from '../../../src/leaves/migration.js';
import type { BytesPerSecond } from '../../../src/leaves/units.js';
import { bytes, bytesPerSecond, millis, UNLIMITED } from '../../../src/leaves/units.js';
import {
  arbitraryCongestion,
  arbitraryLoad,
  arbitraryState,
  arbitraryTerms,
  frozen,
  MB,
  observationOf,
  QUIET,
  termsOf,
} from '../../support/policy-cases.js';

const due = (seconds: number): Case => ({ terms: termsOf(), deadline: millis(seconds * 1000) });
const HOT: Congestion = { hotLinks: ['tor3'], saturatedLinks: ['tor3'], askedBy: [] };
const ASKED: Congestion = { hotLinks: [], saturatedLinks: ['tor3'], askedBy: ['vm7'] };
/** 1 GB left at 100 MB/s: 10 s. */
const tenSeconds = observationOf();

t.test('out of danger it obeys a hot link and whoever asks, and asks nobody', async (t) => {
  for (const congestion of [HOT, ASKED]) {
    const decision = decide(due(100), tenSeconds, congestion, undefined);
    t.equal(decision.netLimit, 50 * MB);
    t.strictSame(decision.askOn, []);
  }
});

t.test('in danger it ignores both, and asks on every saturated link', async (t) => {
  for (const congestion of [HOT, ASKED]) {
    const decision = decide(due(25), tenSeconds, congestion, undefined);
    t.equal(decision.netLimit, UNLIMITED);
    t.strictSame(decision.askOn, ['tor3']);
  }
});

t.test('in danger a limit that is in force goes away', async (t) => {
  let decision = decide(due(1000), tenSeconds, HOT, undefined);
  t.equal(decision.netLimit, 50 * MB);
  const limits: number[] = [];
  for (let i = 0; i < 6; i++) {
    decision = decide(due(25), tenSeconds, HOT, decision);
    limits.push(decision.netLimit / MB);
  }
  t.strictSame(limits, [50, 60, 70, 80, 90, Number.POSITIVE_INFINITY]);
});

t.test('without an estimate it obeys, whatever its zone was', async (t) => {
  const danger = decide(due(25), tenSeconds, HOT, undefined);
  t.equal(danger.zone, 'danger');
  const paused = decide(due(25), observationOf({}, 'paused'), HOT, danger);
  t.match(paused, { zone: 'danger', netLimit: 10 * MB, askOn: [] });
});

t.test('a migration without a deadline obeys and is left alone by everything else', async (t) => {
  const decision = decide({ terms: termsOf() }, tenSeconds, HOT, undefined);
  t.match(decision, { zone: 'calm', netLimit: 50 * MB, diskLimit: UNLIMITED, askOn: [] });
});

t.test('in sync the guest is not slowed down for others', async (t) => {
  const mirroring = observationOf({ left: bytes(0), netRate: 5 * MB }, 'mirroring');
  t.equal(decide(due(1000), mirroring, HOT, undefined).netLimit, UNLIMITED);
  t.equal(decide(due(1000), mirroring, ASKED, undefined).netLimit, UNLIMITED);
});

t.test('the disk limit counts on no more than the network limit in force', async (t) => {
  // 600 MB in 30 s: with a quiet guest 20 s at the 30 MB/s that are still observed, 60 s at the 10 MB/s that it was cut to.
  const load = {
    left: bytes(600 * MB),
    allocated: bytes(1000 * MB),
    netRate: 30 * MB,
    dirtyRate: 2 * MB,
    writeRate: 2 * MB,
  };
  const before = decide(due(1000), observationOf(load), QUIET, undefined);
  const endangered = (netLimit: BytesPerSecond): number =>
    decide(due(30), observationOf(load), QUIET, {
      ...before,
      netLimit,
      memory: { lastAction: 'reduce', quietPeriods: 0 },
    }).disk.endangeredPeriods;
  t.equal(endangered(UNLIMITED), 0);
  t.equal(endangered(bytesPerSecond(10 * MB)), 1);
});

t.test('the reason, for people', async (t) => {
  const reason = (
    subject: Case,
    observation: Observation,
    congestion: Congestion,
    before?: Decision,
  ): string => decide(subject, observation, congestion, before).reason;
  t.equal(reason(due(42), tenSeconds, QUIET), 'no network limit, laxity 4.2');
  t.equal(reason(due(420), tenSeconds, HOT), 'reduced to 50.0 MB/s: tor3 hot, laxity 42.0');
  t.equal(reason(due(420), tenSeconds, ASKED), 'reduced to 50.0 MB/s: asked by vm7, laxity 42.0');
  t.equal(reason(due(18), tenSeconds, HOT), 'in danger: 1.8 of 3; asks on tor3');
  t.equal(reason({ terms: termsOf() }, tenSeconds, QUIET), 'no network limit, no deadline');
  t.equal(reason(due(42), observationOf({}, 'paused'), QUIET), 'no network limit, time left unknown');
  const many: Congestion = { ...ASKED, askedBy: ['vm1', 'vm2', 'vm3', 'vm4', 'vm5'] };
  t.equal(
    reason(due(420), tenSeconds, many),
    'reduced to 50.0 MB/s: asked by vm1, vm2, vm3 and 2 more, laxity 42.0',
  );
  const busy = observationOf({
    netRate: 30 * MB,
    left: bytes(600 * MB),
    allocated: bytes(1000 * MB),
    dirtyRate: 30 * MB,
    writeRate: 30 * MB,
  });
  const first = decide(due(30), busy, QUIET, undefined);
  t.match(
    reason(due(30), busy, QUIET, first),
    /^in danger: \d\.\d of 3.*; guest limited to [\d.]+ MB\/s: 600 MB left at 30\.0 MB\/s would end .* without$/,
  );
  const hopeless = decide(due(10), busy, QUIET, undefined);
  t.match(
    reason(due(10), busy, QUIET, hopeless),
    /; guest limited to the floor of 1\.0 MB\/s, which is not enough: .* late$/,
  );
});

const arbitraryCase: fc.Arbitrary<Case> = fc.record(
  { terms: arbitraryTerms, deadline: fc.integer({ min: 0, max: 10_000_000 }).map(millis) },
  { requiredKeys: ['terms'] },
);
const arbitraryLook = fc.record({
  observation: fc.record({
    at: fc.integer({ min: 0, max: 8_000_000 }).map(millis),
    state: arbitraryState,
    load: arbitraryLoad,
  }),
  congestion: arbitraryCongestion,
});
const inTurn = (
  subject: Case,
  looks: readonly { observation: Observation; congestion: Congestion }[],
): Decision[] => {
  const decisions: Decision[] = [];
  for (const { observation, congestion } of looks)
    decisions.push(decide(subject, observation, congestion, decisions.at(-1)));
  return decisions;
};

t.test('property: limits are never below their floors, and the reason is one line', async () => {
  fc.assert(
    fc.property(arbitraryCase, fc.array(arbitraryLook, { minLength: 1, maxLength: 12 }), (subject, looks) =>
      inTurn(subject, looks).every(
        ({ netLimit, diskLimit, reason }) =>
          netLimit >= subject.terms.floor &&
          diskLimit >= subject.terms.diskFloor &&
          reason.length > 0 &&
          reason.length < 300 &&
          !/\n|NaN|undefined| {2}/.test(reason),
      ),
    ),
    { numRuns: 200 },
  );
});

t.test(
  'property: pure: frozen arguments, the same answer twice, and nothing of the past but the previous',
  async () => {
    fc.assert(
      fc.property(
        arbitraryCase,
        fc.array(arbitraryLook, { minLength: 2, maxLength: 6 }),
        (subject, looks) => {
          frozen(subject);
          frozen(looks);
          const decisions = inTurn(subject, looks);
          const { observation, congestion } = looks.at(-1)!;
          // A copy without the identity of what was decided before.
          const before = frozen(structuredClone(decisions.at(-2)));
          const again = decide(
            structuredClone(subject),
            structuredClone(observation),
            structuredClone(congestion),
            before,
          );
          return fc.stringify(again) === fc.stringify(decisions.at(-1));
        },
      ),
      { numRuns: 200 },
    );
  },
);

t.test('property: no oscillation without cause: a constant look settles, and stays', async () => {
  fc.assert(
    fc.property(
      arbitraryCase,
      fc.array(arbitraryLook, { maxLength: 6 }),
      arbitraryLook,
      (subject, past, look) => {
        const looks = [...past, ...new Array<typeof look>(90).fill(look)];
        const decisions = inTurn(subject, looks)
          .slice(-3)
          .map(({ zone, netLimit, diskLimit }) => ({ zone, netLimit, diskLimit }));
        return new Set(decisions.map((decision) => fc.stringify(decision))).size === 1;
      },
    ),
    { numRuns: 60, endOnFailure: true },
  );
});

t.test('property: once nobody wants bandwidth, no limit is left after n + 1 periods', async () => {
  fc.assert(
    fc.property(
      arbitraryCase,
      fc.array(arbitraryLook, { minLength: 1, maxLength: 6 }),
      arbitraryLook,
      (subject, past, { observation }) => {
        const quiet = { observation, congestion: QUIET };
        const decisions = inTurn(subject, [
          ...past,
          ...new Array<typeof quiet>(subject.terms.quietPeriods + 1).fill(quiet),
        ]);
        return decisions.at(-1)!.netLimit === UNLIMITED;
      },
    ),
    { numRuns: 200 },
  );
});

t.test(
  'property: only who is in danger asks, and only on saturated links; it never lowers its own limit',
  async () => {
    fc.assert(
      fc.property(arbitraryCase, arbitraryLook, arbitraryLook, (subject, before, now) => {
        const previous = decide(subject, before.observation, before.congestion, undefined);
        const decision = decide(subject, now.observation, now.congestion, previous);
        const { askOn, zone, netLimit, ratio } = decision;
        if (askOn.some((link) => !now.congestion.saturatedLinks.includes(link))) return false;
        if (zone !== 'danger' || ratio === undefined) return askOn.length === 0;
        return isFinal(now.observation.state) || netLimit >= previous.netLimit;
      }),
      { numRuns: 500 },
    );
  },
);

t.test('property: whoever has more time gives at least as much up', async () => {
  fc.assert(
    fc.property(
      arbitraryTerms,
      arbitraryLoad,
      fc.integer({ min: 1, max: 5_000_000 }),
      fc.integer({ min: 1, max: 5_000_000 }),
      (terms, load, near, more) => {
        const look: Observation = {
          at: millis(0),
          state: 'bulk-copy',
          load: { ...load, netRate: Math.max(load.netRate, 1 * MB) },
        };
        const limit = (away: number): number =>
          decide(
            { terms: { ...terms, floor: bytesPerSecond(1) }, deadline: millis(away) },
            look,
            HOT,
            undefined,
          ).netLimit;
        return limit(near + more) <= limit(near) * 1.01;
      },
    ),
    { numRuns: 300 },
  );
});
