import fc from 'fast-check';
import t from 'tap';
import type { Case, Observation } from '../../../src/broker/policy/decision.js';
import type { DiskLimit } from '../../../src/broker/policy/disk-limit.js';
import {
  DISK_CAN_WAIT,
  DISK_CONFIRMATIONS,
  DISK_GAIN_MIN,
  DISK_MARGIN,
  DISK_SLACK,
  diskLimit,
} from '../../../src/broker/policy/disk-limit.js';
import { laxity } from '../../../src/broker/policy/laxity.js';
import type { BrokerTerms } from '../../../src/leaves/broker.js';
import type { MigrationState } from '../../../src/leaves/migration.js';
import type { TransferLoad } from '../../../src/leaves/time-left.js';
import { timeLeft, timeLeftWith } from '../../../src/leaves/time-left.js';
import { bytes, bytesPerSecond, millis, UNLIMITED } from '../../../src/leaves/units.js';
import {
  arbitraryLoad,
  arbitraryTerms,
  loadOf,
  MB,
  observationOf,
  termsOf,
} from '../../support/policy-cases.js';

const due = (seconds: number, terms: Partial<BrokerTerms> = {}): Case => ({
  terms: termsOf(terms),
  deadline: millis(seconds * 1000),
});
/** 600 MB left at 30 MB/s, and a guest that writes as much to clean blocks. */
const ENDANGERED: Partial<TransferLoad> = {
  left: bytes(600 * MB),
  allocated: bytes(1000 * MB),
  netRate: 30 * MB,
  dirtyRate: 30 * MB,
  writeRate: 30 * MB,
};

const next = (subject: Case, observation: Observation, before?: DiskLimit): DiskLimit =>
  diskLimit(
    subject,
    observation,
    laxity(subject, observation, undefined),
    observation.load.netRate,
    before && { diskLimit: before.limit, disk: before.memory },
  );
/** As many decisions as it takes to be sure. */
const settled = (subject: Case, observation: Observation, before?: DiskLimit): DiskLimit => {
  let now = before;
  for (let i = 0; i < DISK_CONFIRMATIONS; i++) now = next(subject, observation, now);
  return now!;
};
/** A tenth, and always less than a warning. */
const marginOf = ({ warning }: BrokerTerms): number => Math.min(1 + DISK_MARGIN, (1 + warning) / 2);
/** Expression 1 with the margin, as this test has it: the load as if the guest wrote no more than `writeLimit`. */
const holds = ({ terms, deadline }: Case, { load, at }: Observation, writeLimit: number): boolean => {
  const left = timeLeftWith(load, { writeLimit });
  return (
    left !== undefined && (left.expected + terms.vmmTime) * marginOf(terms) + DISK_SLACK <= deadline! - at
  );
};

t.test('the weakest limit that makes Expression 1 hold', async (t) => {
  const { limit, action } = settled(due(30), observationOf(ENDANGERED));
  t.equal(action, 'limit');
  t.ok(limit > 1 * MB && limit < 30 * MB, `${limit}`);
  t.ok(holds(due(30), observationOf(ENDANGERED), limit), 'suffices');
  t.notOk(holds(due(30), observationOf(ENDANGERED), limit * 1.002), 'a slightly larger one would not');
});

t.test('applied when it was needed twice in a row, not before', async (t) => {
  const first = next(due(30), observationOf(ENDANGERED));
  t.equal(first.limit, UNLIMITED);
  const fine = next(due(30), observationOf({ ...ENDANGERED, dirtyRate: 0, writeRate: 0 }), first);
  t.equal(
    next(due(30), observationOf(ENDANGERED), fine).limit,
    UNLIMITED,
    'counted from the beginning again',
  );
  t.ok(next(due(30), observationOf(ENDANGERED), first).limit < 30 * MB);
});

t.test('none where it is not needed', async (t) => {
  const slow = observationOf({ ...ENDANGERED, dirtyRate: 6 * MB, writeRate: 6 * MB });
  const expected = timeLeft(slow.load)!.expected / 1000;
  // With a minute for the hypervisor there is nothing to wait for.
  const minute = { vmmTime: millis(60_000) };
  const enough = (expected + 60) * (1 + DISK_MARGIN) + DISK_SLACK / 1000;
  t.equal(
    settled(due(enough + 0.1, minute), slow).limit,
    UNLIMITED,
    'Expression 1 holds, in danger as it is',
  );
  t.ok(settled(due(enough - 0.1, minute), slow).limit < 6 * MB, 'the margin is not kept');
  t.equal(settled({ terms: termsOf() }, observationOf(ENDANGERED)).limit, UNLIMITED, 'no deadline');
  for (const state of [
    'preparing',
    'mirroring',
    'cutover',
    'completed',
    'cancelled',
    'failed',
  ] as MigrationState[])
    t.equal(settled(due(30), observationOf(ENDANGERED, state)).limit, UNLIMITED, state);
});

t.test('a limit in force', async (t) => {
  const subject = due(30);
  const limited = settled(subject, observationOf(ENDANGERED));
  const pressing: Partial<TransferLoad> = {
    ...ENDANGERED,
    writeRate: limited.limit,
    dirtyRate: limited.limit,
  };
  t.test('stays while the guest presses against it', async (t) => {
    let now = limited;
    for (let i = 0; i < 50; i++) now = next(subject, observationOf(pressing), now);
    t.ok(Math.abs(now.limit / limited.limit - 1) < 0.01, `${limited.limit}, then ${now.limit}`);
  });
  t.test('stays as it is while the time left is unknown', async (t) => {
    for (const state of ['paused', 'interrupted'] as MigrationState[])
      t.match(next(subject, observationOf(pressing, state), limited), {
        limit: limited.limit,
        memory: limited.memory,
        action: 'keep',
      });
  });
  t.test('stays about as it is after a long pause, or when the clock was set', async (t) => {
    const load = { left: bytes(100_000 * MB), allocated: bytes(100_000 * MB), netRate: 100 * MB };
    const guest = { writeRate: 45 * MB, dirtyRate: 31.5 * MB };
    const now = observationOf({ ...load, ...guest }, 'bulk-copy', 600_000);
    const before = (at: number): DiskLimit => ({
      limit: bytesPerSecond(45 * MB),
      memory: { demand: 60 * MB, endangeredPeriods: 2, at: millis(at) },
      action: 'keep',
    });
    const soon = next(due(3000), now, before(570_000));
    const late = next(due(3000), now, before(0));
    t.ok(late.limit > soon.limit * 0.8, `${soon.limit / MB} MB/s, and ${late.limit / MB} ten minutes later`);
    t.equal(next(due(3000), { ...now, state: 'paused' }, before(0)).memory.at, now.at, 'it was looked at');
  });
  t.test('is not taken for superfluous while the smoothed rate follows a raised limit', async (t) => {
    const demand = 60 * MB;
    const pressing = (writeRate: number, left: number): Observation =>
      observationOf({ ...ENDANGERED, left: bytes(left), writeRate, dirtyRate: writeRate });
    let now = settled(due(30), pressing(demand, 600 * MB));
    const { limit } = now;
    // Less is left than was expected, so the limit is raised.
    now = next(due(30), pressing(limit, 450 * MB), now);
    t.ok(now.limit > limit * 1.2, `${limit} is raised to ${now.limit}`);
    now = next(due(30), pressing(limit + (now.limit - limit) * 0.4, 450 * MB), now);
    t.equal(now.memory.demand, demand, 'what it wants is not forgotten');
    t.not(now.limit, UNLIMITED);
  });

  t.test('goes as soon as Expression 1 holds without it', async (t) => {
    const faster = observationOf({ ...pressing, netRate: 300 * MB });
    t.equal(next(subject, faster, limited).action, 'release');
    t.equal(next(subject, faster, limited).limit, UNLIMITED);
  });
  t.test('goes when the guest has stopped to want it, after some periods', async (t) => {
    const quiet = observationOf({ ...ENDANGERED, writeRate: 2 * MB, dirtyRate: 2 * MB });
    let now = limited;
    let periods = 0;
    while (now.limit !== UNLIMITED && periods < 100) {
      now = next(subject, quiet, now);
      periods++;
    }
    // What it wanted fades by 0.7 a period: from 30 to 2 MB/s in eight.
    t.ok(periods > 1 && periods <= 8, `${periods}`);
  });
  t.test(
    'stays until the end where a guest presses against it and another limit would come too late',
    async (t) => {
      // 90 MB at 60 MB/s in 6 s: fine without a limit, by what is known at a second from the last look.
      const before = { ...limited, memory: { ...limited.memory, at: millis(23_000) } };
      const ending = { ...ENDANGERED, left: bytes(90 * MB), netRate: 60 * MB };
      const nearly = (writeRate: number): DiskLimit =>
        next(
          subject,
          observationOf({ ...ending, dirtyRate: writeRate, writeRate }, 'bulk-copy', 24_000),
          before,
        );
      t.match(nearly(limited.limit), { limit: limited.limit, action: 'keep' });
      t.match(nearly(limited.limit / 2), { limit: UNLIMITED, action: 'release' });
    },
  );
  t.test('goes in sync, at the end, and when the deadline has passed', async (t) => {
    for (const state of ['mirroring', 'cutover', 'completed', 'failed'] as MigrationState[])
      t.equal(next(subject, observationOf(pressing, state), limited).limit, UNLIMITED, state);
    t.equal(next(subject, observationOf(pressing, 'bulk-copy', 30_001), limited).limit, UNLIMITED);
  });
  t.test('goes where there is time enough for all that the guest wants', async (t) => {
    t.equal(next(due(1_000), observationOf(pressing), limited).limit, UNLIMITED);
  });
  t.test(
    'stays although a limited guest leaves so little that the ratio is above that of a warning',
    async (t) => {
      // 15 MB at 30 MB/s are 0.5 s of 3.
      const ending = observationOf({ ...pressing, left: bytes(15 * MB) }, 'dirty-resend', 27_000);
      t.ok(laxity(subject, ending, undefined).ratio! > subject.terms.warning);
      t.not(next(subject, ending, limited).limit, UNLIMITED);
    },
  );
});

t.test(
  'none where it would bring nothing: the disks are copied, the time for the hypervisor is not there',
  async (t) => {
    const copied = observationOf({ ...ENDANGERED, left: bytes(0) }, 'dirty-resend');
    t.equal(settled(due(5, { vmmTime: millis(10_000) }), copied).limit, UNLIMITED);
  },
);

t.test(
  'late: it waits while a guest at the floor would leave half as much again of what is needed',
  async (t) => {
    const floored = timeLeftWith(observationOf(ENDANGERED).load, { writeLimit: 1 * MB })!.expected / 1000;
    const later = floored * DISK_CAN_WAIT + (2 * DISK_SLACK) / 1000;
    const waiting = settled(due(later + 0.1), observationOf(ENDANGERED));
    t.match(waiting, { limit: UNLIMITED, action: 'wait' });
    const now = next(due(later - 0.1), observationOf(ENDANGERED), waiting);
    t.equal(now.action, 'limit', 'and then it comes at once');
    t.ok(now.limit < 30 * MB);
  },
);

t.test('when the floor is not enough the limit is the floor', async (t) => {
  const { limit, action, late } = settled(due(10), observationOf(ENDANGERED));
  t.equal(action, 'floor');
  t.equal(limit, 1 * MB);
  // 600 MB at 30 MB/s are 20 s, with a guest that writes nothing.
  t.ok(late! > 10_000 && late! < 13_000, `${late}`);
});

const arbitraryCase = fc.record({
  terms: arbitraryTerms,
  deadline: fc.integer({ min: 1, max: 10_000_000 }).map(millis),
});

/** A guest that matters, and a deadline around those that a limit decides: from the floor's to that without one. */
const arbitraryTight = fc
  .record({
    terms: arbitraryTerms,
    allocated: fc.integer({ min: 1e8, max: 1e12 }),
    part: fc.double({ min: 0.01, max: 1, noNaN: true }),
    netRate: fc.integer({ min: 30 * MB, max: 1000 * MB }),
    writes: fc.double({ min: 0.3, max: 3, noNaN: true }),
    distinct: fc.double({ min: 0.2, max: 1, noNaN: true }),
    // Not at the two ends themselves: rounding decides there.
    where: fc.integer({ min: -10, max: 109 }).map((hundredth) => (hundredth + 0.5) / 100),
  })
  .map(({ terms, allocated, part, netRate, writes, distinct, where }) => {
    const writeRate = netRate * writes;
    const left = bytes(Math.round(allocated * part));
    const load = loadOf({
      allocated: bytes(allocated),
      left,
      netRate,
      writeRate,
      dirtyRate: writeRate * distinct,
    });
    const free = timeLeft(load)!.expected;
    const floored = timeLeftWith(load, { writeLimit: terms.diskFloor })!.expected;
    const needed = Math.max(0, floored + (free - floored) * where) + terms.vmmTime;
    const deadline = millis(needed * marginOf(terms) + DISK_SLACK);
    const canWait = (floored + terms.vmmTime) * DISK_CAN_WAIT + 2 * DISK_SLACK <= deadline;
    return { subject: { terms, deadline }, load, canWait, helps: (free - floored) / (free + terms.vmmTime) };
  });

t.test('property: the limit is the weakest that suffices, at least the floor', async (t) => {
  const seen = { limit: 0, floor: 0, none: 0 };
  fc.assert(
    fc.property(arbitraryTight, ({ subject, load, canWait, helps }) => {
      const observation: Observation = { at: millis(0), state: 'dirty-resend', load };
      const { limit, action } = settled(subject, observation);
      const { diskFloor, warning } = subject.terms;
      const { ratio } = laxity(subject, observation, undefined);
      if (limit === UNLIMITED) {
        seen.none++;
        const needed = ratio !== undefined && ratio <= warning && !holds(subject, observation, UNLIMITED);
        return !needed || load.writeRate <= diskFloor || helps <= DISK_GAIN_MIN || canWait;
      }
      if (limit < diskFloor || ratio! > warning || holds(subject, observation, UNLIMITED)) return false;
      if (action === 'floor') {
        seen.floor++;
        return limit === diskFloor && !holds(subject, observation, limit);
      }
      seen.limit++;
      const larger = [...Array(8).keys()].map((i) => limit + ((i + 1) / 8) * Math.max(1, limit / 1024));
      const coarse = [...Array(15).keys()]
        .map((i) => (load.writeRate * (i + 1)) / 16)
        .filter((rate) => rate > limit * 1.01);
      return (
        holds(subject, observation, limit) &&
        larger.some((rate) => !holds(subject, observation, rate)) &&
        coarse.every((rate) => !holds(subject, observation, rate))
      );
    }),
    { numRuns: 500, endOnFailure: true },
  );
  t.ok(seen.limit > 100 && seen.floor > 20 && seen.none > 20, `each case was met: ${JSON.stringify(seen)}`);
});

t.test(
  'property: it settles for a constant load, and goes within 80 periods of a guest that is quiet',
  async () => {
    fc.assert(
      fc.property(arbitraryCase, arbitraryLoad, arbitraryLoad, (subject, past, load) => {
        const at = (some: TransferLoad): Observation => ({ at: millis(0), state: 'bulk-copy', load: some });
        let now = settled(subject, at(past));
        for (let i = 0; i < 80; i++) now = next(subject, at(load), now);
        const again = next(subject, at(load), now);
        const quiet = at({ ...load, writeRate: 0, dirtyRate: 0, netRate: Math.max(load.netRate, 1) });
        let last = again;
        for (let i = 0; i < 80; i++) last = next(subject, quiet, last);
        return again.limit === now.limit && last.limit === UNLIMITED;
      }),
      { numRuns: 60, endOnFailure: true },
    );
  },
);
