import fc from 'fast-check';
import t from 'tap';
import type { NetworkMemory } from '../../../src/broker/policy/decision.js';
import type { NetworkLimit, NetworkUse } from '../../../src/broker/policy/network-limit.js';
import { networkLimit } from '../../../src/broker/policy/network-limit.js';
import type { BytesPerSecond } from '../../../src/leaves/units.js';
import { bytesPerSecond, UNLIMITED } from '../../../src/leaves/units.js';
import { arbitraryTerms, MB, termsOf } from '../../support/policy-cases.js';

const mb = (value: number): BytesPerSecond => bytesPerSecond(value * MB);
const sending = (rate: number): NetworkUse => ({ rate: rate * MB, keep: 0, copying: true });
const INCREASED: NetworkMemory = { lastAction: 'increase', quietPeriods: 2 };
const REDUCED: NetworkMemory = { lastAction: 'reduce', quietPeriods: 0 };
const terms = termsOf();

const arbitraryUse = fc.record({
  rate: fc.double({ min: 0, max: 2000 * MB, noNaN: true }),
  keep: fc.double({ min: 0, max: 2000 * MB, noNaN: true }),
  copying: fc.boolean(),
});
const arbitraryMemory: fc.Arbitrary<NetworkMemory> = fc.record(
  {
    lastAction: fc.constantFrom('increase', 'reduce'),
    lastOk: fc.double({ min: 1, max: 2000 * MB, noNaN: true }).map(bytesPerSecond),
    quietPeriods: fc.nat(12),
  },
  { requiredKeys: ['lastAction', 'quietPeriods'] },
);
/** A limit that a decision under these terms may have set. */
const limitUnder = (floor: number): fc.Arbitrary<BytesPerSecond> =>
  fc.oneof(
    fc.constant(UNLIMITED),
    fc.double({ min: floor, max: floor + 2000 * MB, noNaN: true }).map(bytesPerSecond),
  );
const arbitraryCase = arbitraryTerms.chain((some) =>
  fc.record({
    terms: fc.constant(some),
    use: arbitraryUse,
    limit: limitUnder(some.floor),
    memory: arbitraryMemory,
  }),
);

t.test('Algorithm 2, line by line', async (t) => {
  t.test('reduced and still congested: half of the rate', async (t) => {
    const { limit, memory } = networkLimit(terms, true, sending(30), mb(40), REDUCED);
    t.equal(limit, 15 * MB);
    t.match(memory, { lastAction: 'reduce', quietPeriods: 0 });
  });
  t.test('reduced and quiet: held for one period, and remembered as ok', async (t) => {
    const { limit, memory } = networkLimit(terms, false, sending(30), mb(40), REDUCED);
    t.equal(limit, 40 * MB);
    t.match(memory, { lastAction: 'increase', lastOk: 40 * MB, quietPeriods: 1 });
  });
  t.test('increased and congested: back to the last rate that was ok', async (t) => {
    const { limit, memory } = networkLimit(terms, true, sending(50), mb(50), {
      ...INCREASED,
      lastOk: mb(40),
    });
    t.equal(limit, 40 * MB);
    t.match(memory, { lastAction: 'reduce', quietPeriods: 0 });
  });
  t.test(
    'increased and congested, with no rate that was ok, or with one that is no lower: half',
    async (t) => {
      t.equal(networkLimit(terms, true, sending(50), mb(50), INCREASED).limit, 25 * MB);
      t.equal(
        networkLimit(terms, true, sending(30), mb(50), { ...INCREASED, lastOk: mb(30) }).limit,
        15 * MB,
      );
      t.equal(
        networkLimit(terms, true, sending(30), mb(50), { ...INCREASED, lastOk: mb(40) }).limit,
        15 * MB,
      );
    },
  );
  t.test('without a limit, a rate that was ok and is hardly lower is noise: half', async (t) => {
    t.equal(
      networkLimit(terms, true, sending(50), UNLIMITED, { ...INCREASED, lastOk: mb(48) }).limit,
      25 * MB,
    );
    t.equal(
      networkLimit(terms, true, sending(50), UNLIMITED, { ...INCREASED, lastOk: mb(30) }).limit,
      30 * MB,
    );
  });
  t.test('increased and quiet: one step more', async (t) => {
    const { limit, memory } = networkLimit(terms, false, sending(38), mb(40), INCREASED);
    t.equal(limit, 50 * MB);
    t.match(memory, { lastAction: 'increase', lastOk: 40 * MB, quietPeriods: 3 });
  });
  t.test('after more than n quiet periods: none', async (t) => {
    const at = (quietPeriods: number): number =>
      networkLimit(terms, false, sending(38), mb(40), { ...INCREASED, quietPeriods }).limit;
    t.equal(at(4), 50 * MB, 'the fifth of five');
    t.equal(at(5), UNLIMITED, 'the sixth');
  });
  t.test('the floor', async (t) => {
    t.equal(networkLimit(terms, true, sending(1.5), mb(2), REDUCED).limit, 1 * MB);
  });
});

t.test('who has nothing to give keeps its limit, although it sends a little less', async (t) => {
  const memory = { lastAction: 'reduce', quietPeriods: 0 } as const;
  const use = { ...sending(52), keep: 58 * MB };
  const { limit, action } = networkLimit(terms, true, use, mb(60), memory);
  t.match({ limit, action }, { limit: 60 * MB, action: 'reduce' });
  t.equal(networkLimit(terms, true, { ...use, keep: 40 * MB }, mb(60), memory).limit, 40 * MB);
  t.equal(networkLimit(terms, true, use, mb(100), memory).limit, 65 * MB, 'a quarter more than it sends');
});

t.test('what is given up stops at what keeps it out of danger', async (t) => {
  t.equal(networkLimit(terms, true, { ...sending(100), keep: 70 * MB }, UNLIMITED).limit, 70 * MB);
  t.equal(networkLimit(terms, true, { ...sending(100), keep: 170 * MB }, UNLIMITED).limit, 125 * MB);
  const kept = networkLimit(terms, true, { ...sending(50), keep: 45 * MB }, mb(50), {
    ...INCREASED,
    lastOk: mb(40),
  });
  t.equal(kept.limit, 45 * MB);
});

t.test('a migration that sends nothing', async (t) => {
  const idle: NetworkUse = { rate: 0, keep: 0, copying: false };
  t.equal(
    networkLimit(terms, true, idle, mb(40), REDUCED).limit,
    40 * MB,
    'keeps its limit when others want the link',
  );
  t.equal(
    networkLimit(terms, true, idle, UNLIMITED).limit,
    10 * MB,
    'starts with one step on a link that is hot',
  );
  t.equal(
    networkLimit(terms, false, idle, UNLIMITED).limit,
    UNLIMITED,
    'is not limited when nobody wants it',
  );
});

t.test('property: never below the floor', async () => {
  fc.assert(
    fc.property(
      arbitraryCase,
      fc.boolean(),
      ({ terms, use, limit, memory }, backoff) =>
        networkLimit(terms, backoff, use, limit, memory).limit >= terms.floor,
    ),
    { numRuns: 2000 },
  );
});

t.test('property: without back-off a limit never falls, whatever it sends', async () => {
  fc.assert(
    fc.property(
      arbitraryCase,
      ({ terms, use, limit, memory }) => networkLimit(terms, false, use, limit, memory).limit >= limit,
    ),
    { numRuns: 2000 },
  );
});

t.test(
  'property: once congestion has ended the limit is higher after two periods, and gone after n + 1',
  async () => {
    fc.assert(
      fc.property(
        arbitraryCase,
        fc.array(fc.boolean(), { maxLength: 20 }),
        fc.array(arbitraryUse, { minLength: 13, maxLength: 13 }),
        ({ terms, use, limit, memory }, past, uses) => {
          let now: NetworkLimit = { limit, memory, action: 'none' };
          for (const backoff of past) now = networkLimit(terms, backoff, use, now.limit, now.memory);
          now = networkLimit(terms, true, use, now.limit, now.memory);
          const limits = [now.limit];
          for (const later of uses.slice(0, terms.quietPeriods + 1)) {
            now = networkLimit(terms, false, later, now.limit, now.memory);
            limits.push(now.limit);
          }
          const raised = (limits[2] ?? UNLIMITED) > limits[0]!;
          return raised && limits.at(-1) === UNLIMITED;
        },
      ),
      { numRuns: 2000 },
    );
  },
);

t.test('property: it yields within two periods: to half, or to what it has to keep', async () => {
  fc.assert(
    fc.property(arbitraryCase, ({ terms, use, limit, memory }) => {
      const copying = { ...use, copying: true };
      const first = networkLimit(terms, true, copying, limit, memory);
      const rate = Math.min(use.rate, first.limit);
      const second = networkLimit(terms, true, { ...copying, rate }, first.limit, first.memory);
      const half = Math.max(Math.min(use.rate, limit), terms.floor) / 2;
      const kept = Math.min(use.keep, Math.max(use.rate, terms.floor)) * 1.25;
      return second.limit <= Math.max(terms.floor, half + 1, kept + 1);
    }),
    { numRuns: 2000 },
  );
});
