import fc from 'fast-check';
import t from 'tap';
import type { Case, Decision, Observation } from '../../../src/broker/policy/decision.js';
import { DANGER_HYSTERESIS, laxity, rateToKeep, STALLED_PERIODS } from '../../../src/broker/policy/laxity.js';
import type { BrokerTerms, BrokerZone } from '../../../src/leaves/broker.js';
import type { MigrationState } from '../../../src/leaves/migration.js';
import { bytes, bytesPerSecond, millis, UNLIMITED } from '../../../src/leaves/units.js';
import {
  arbitraryLoad,
  arbitraryState,
  arbitraryTerms,
  MB,
  observationOf,
  termsOf,
} from '../../support/policy-cases.js';

const due = (seconds: number, terms: Partial<BrokerTerms> = {}): Case => ({
  terms: termsOf(terms),
  deadline: millis(seconds * 1000),
});
const decided = (zone: BrokerZone, stalledPeriods = 0): Decision => ({
  zone,
  netLimit: UNLIMITED,
  diskLimit: UNLIMITED,
  memory: { lastAction: 'increase', quietPeriods: 0 },
  disk: { demand: 0, endangeredPeriods: 0, at: millis(0) },
  stalledPeriods,
  askOn: [],
  reason: '',
});
/** 1 GB left at 100 MB/s: 10 s. */
const tenSeconds = observationOf();
const zone = (subject: Case, observation: Observation = tenSeconds, previous?: Decision): BrokerZone =>
  laxity(subject, observation, previous).zone;

t.test('the ratio is the time to the deadline by the time for disks and hypervisor', async (t) => {
  t.equal(laxity(due(45), tenSeconds, undefined).ratio, 4.5);
  t.equal(laxity(due(45, { vmmTime: millis(5_000) }), tenSeconds, undefined).ratio, 3);
  t.equal(laxity(due(45), { ...tenSeconds, at: millis(25_000) }, undefined).ratio, 2);
});

t.test('zones: danger below its threshold, warning up to its own', async (t) => {
  t.equal(zone(due(29.9)), 'danger');
  t.equal(zone(due(30)), 'warning');
  t.equal(zone(due(40)), 'warning');
  t.equal(zone(due(40.1)), 'calm');
});

t.test('important: in danger where others are warned, and not before', async (t) => {
  t.equal(zone(due(40.1, { important: true })), 'calm');
  t.equal(zone(due(40, { important: true })), 'danger');
});

t.test('danger is left a little above the threshold only', async (t) => {
  const out = 30 * (1 + DANGER_HYSTERESIS);
  t.equal(zone(due(30.1), tenSeconds, decided('danger')), 'danger');
  t.equal(zone(due(out - 0.1), tenSeconds, decided('danger')), 'danger');
  t.equal(zone(due(out + 0.1), tenSeconds, decided('danger')), 'warning');
  t.equal(zone(due(30.1), tenSeconds, decided('warning')), 'warning');
});

t.test('without a deadline it is calm, whatever happens', async (t) => {
  const found = laxity(
    { terms: termsOf({ important: true }) },
    observationOf({ netRate: 1 }),
    decided('danger', 3),
  );
  t.match(found, { zone: 'calm', ratio: undefined, timeToDeadline: undefined });
});

t.test('without an estimate it stays in the zone that it was in, without a ratio', async (t) => {
  const unknown: MigrationState[] = ['preparing', 'paused', 'interrupted'];
  for (const state of unknown) {
    for (const before of ['calm', 'warning', 'danger'] as const)
      t.match(
        laxity(due(1), observationOf({}, state), decided(before)),
        { zone: before, ratio: undefined },
        state,
      );
    t.equal(laxity(due(1), observationOf({}, state), undefined).zone, 'calm', state);
  }
  t.match(laxity(due(1), observationOf({ netRate: 0 }), undefined), { zone: 'calm', ratio: undefined });
});

t.test('nothing acknowledged for some decisions in a row: it never gets there', async (t) => {
  let before: Decision | undefined;
  const ratios: (number | undefined)[] = [];
  for (let i = 0; i < STALLED_PERIODS; i++) {
    const found = laxity(due(1e6), observationOf({ netRate: 0 }), before);
    ratios.push(found.ratio);
    before = decided(found.zone, found.stalledPeriods);
  }
  t.strictSame(ratios, [...new Array(STALLED_PERIODS - 1).fill(undefined), 0]);
  t.equal(before?.zone, 'danger');
  t.equal(laxity(due(1e6), tenSeconds, before).stalledPeriods, 0, 'a byte ends it');
});

t.test('past its deadline it is in danger', async (t) => {
  t.match(laxity(due(1), { ...tenSeconds, at: millis(9_000) }, undefined), { zone: 'danger', ratio: 0 });
});

t.test('nothing left and no time for the hypervisor: no division by zero', async (t) => {
  const found = laxity(due(30), observationOf({ left: bytes(0) }, 'mirroring'), undefined);
  t.equal(found.zone, 'calm');
  t.ok(Number.isFinite(found.ratio));
});

t.test('what it has to keep brings it a little out of danger: 1 GB in 100 s at a ratio of 3.3', async (t) => {
  const subject = due(100);
  const kept = rateToKeep(subject, tenSeconds, laxity(subject, tenSeconds, undefined));
  t.ok(Math.abs(kept - 33 * MB) < 0.1 * MB, `${kept}`);
});

t.test('property: a ratio is a finite number, not negative, and decides the zone', async () => {
  fc.assert(
    fc.property(
      arbitraryTerms,
      arbitraryLoad,
      arbitraryState,
      fc.integer({ min: -100_000, max: 10_000_000 }),
      fc.constantFrom<BrokerZone | undefined>('calm', 'warning', 'danger', undefined),
      (terms, load, state, away, before) => {
        const subject = { terms, deadline: millis(1e9 + away) };
        const found = laxity(subject, { at: millis(1e9), state, load }, before && decided(before));
        if (found.ratio === undefined) return found.zone === (before ?? 'calm');
        const threshold = terms.important ? terms.warning : terms.danger;
        if (found.ratio < threshold && found.zone !== 'danger') return false;
        if (found.ratio > threshold * (1 + DANGER_HYSTERESIS) && found.zone === 'danger') return false;
        return Number.isFinite(found.ratio) && found.ratio >= 0;
      },
    ),
    { numRuns: 1000 },
  );
});

t.test('property: with what it keeps a migration that could stay out of danger does', async () => {
  fc.assert(
    fc.property(
      arbitraryTerms,
      arbitraryLoad,
      fc.integer({ min: 1, max: 10_000_000 }),
      (terms, load, away) => {
        const subject = { terms, deadline: millis(away) };
        const at = { at: millis(0), state: 'bulk-copy', load } as const;
        const found = laxity(subject, at, undefined);
        const keep = rateToKeep(subject, at, found);
        if (keep > load.netRate) return false;
        if (found.zone === 'danger' || found.ratio === undefined || keep === load.netRate) return true;
        const slower = { ...at, load: { ...load, netRate: bytesPerSecond(Math.max(keep, 1e-9)) } };
        return laxity(subject, slower, undefined).zone !== 'danger';
      },
    ),
    { numRuns: 1000 },
  );
});
