/** Terms, loads and congestion for the properties of the policy, by hand or at random. */
import fc from 'fast-check';
import type { Congestion, Observation } from '../../src/broker/policy/decision.js';
import type { BrokerTerms } from '../../src/leaves/broker.js';
import type { MigrationState } from '../../src/leaves/migration.js';
import { MIGRATION_EDGES } from '../../src/leaves/migration.js';
import type { TransferLoad } from '../../src/leaves/time-left.js';
import { bytes, bytesPerSecond, millis } from '../../src/leaves/units.js';

export const MB = 1e6;
export const QUIET: Congestion = { hotLinks: [], saturatedLinks: [], askedBy: [] };

/** The defaults of a migration that asks for none, without time for the hypervisor. */
export const termsOf = (change: Partial<BrokerTerms> = {}): BrokerTerms => ({
  danger: 3,
  warning: 4,
  important: false,
  quietPeriods: 5,
  step: bytesPerSecond(10 * MB),
  floor: bytesPerSecond(1 * MB),
  diskFloor: bytesPerSecond(1 * MB),
  vmmTime: millis(0),
  ...change,
});

/** 1 GB left at 100 MB/s of a quiet guest: 10 s. */
export const loadOf = (change: Partial<TransferLoad> = {}): TransferLoad => ({
  left: bytes(1000 * MB),
  allocated: bytes(4000 * MB),
  netRate: 100 * MB,
  dirtyRate: 0,
  writeRate: 0,
  netDeviation: 0,
  dirtyDeviation: 0,
  converging: false,
  ...change,
});

export const observationOf = (
  load: Partial<TransferLoad> = {},
  state: MigrationState = 'bulk-copy',
  at = 0,
): Observation => ({ at: millis(at), state, load: loadOf(load) });

export const arbitraryTerms: fc.Arbitrary<BrokerTerms> = fc
  .record({
    danger: fc.double({ min: 1.01, max: 8, noNaN: true }),
    above: fc.double({ min: 0, max: 4, noNaN: true }),
    important: fc.boolean(),
    quietPeriods: fc.integer({ min: 0, max: 12 }),
    step: fc.integer({ min: 1, max: 200 * MB }),
    floor: fc.integer({ min: 1, max: 20 * MB }),
    diskFloor: fc.integer({ min: 1, max: 20 * MB }),
    vmmTime: fc.integer({ min: 0, max: 60_000 }),
  })
  .map(({ danger, above, step, floor, diskFloor, vmmTime, ...rest }) => ({
    ...rest,
    danger,
    warning: danger + above,
    step: bytesPerSecond(step),
    floor: bytesPerSecond(floor),
    diskFloor: bytesPerSecond(diskFloor),
    vmmTime: millis(vmmTime),
  }));

const arbitraryRate = fc.oneof(
  { weight: 1, arbitrary: fc.constant(0) },
  { weight: 9, arbitrary: fc.double({ min: 1, max: 2000 * MB, noNaN: true }) },
);

export const arbitraryLoad: fc.Arbitrary<TransferLoad> = fc
  .record({
    allocated: fc.integer({ min: 0, max: 1e13 }),
    part: fc.double({ min: 0, max: 1, noNaN: true }),
    netRate: arbitraryRate,
    dirtyRate: arbitraryRate,
    writeRate: arbitraryRate,
    deviation: fc.double({ min: 0, max: 0.5, noNaN: true }),
    converging: fc.boolean(),
  })
  .map(({ allocated, part, deviation, ...rest }) => ({
    ...rest,
    allocated: bytes(allocated),
    left: bytes(Math.round(allocated * part)),
    netDeviation: rest.netRate * deviation,
    dirtyDeviation: rest.dirtyRate * deviation,
  }));

export const arbitraryState: fc.Arbitrary<MigrationState> = fc.oneof(
  { weight: 3, arbitrary: fc.constantFrom<MigrationState>('bulk-copy', 'dirty-resend') },
  { weight: 1, arbitrary: fc.constantFrom(...(Object.keys(MIGRATION_EDGES) as MigrationState[])) },
);

export const arbitraryCongestion: fc.Arbitrary<Congestion> = fc.record({
  hotLinks: fc.subarray(['tor1', 'core']),
  saturatedLinks: fc.subarray(['tor1', 'core', 'host-a']),
  askedBy: fc.subarray(['vm1', 'vm2']),
});

/** Freezes a plain value and everything in it. */
export const frozen = <T>(value: T): T => {
  if (typeof value === 'object' && value !== null) {
    for (const part of Object.values(value)) frozen(part);
    Object.freeze(value);
  }
  return value;
};
