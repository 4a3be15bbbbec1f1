import fc from 'fast-check';
import t from 'tap';
import type { SegmentLoad, TransferLoad } from '../../src/leaves/time-left.js';
import { timeLeft, timeLeftWith } from '../../src/leaves/time-left.js';
import type { Bytes } from '../../src/leaves/units.js';
import { bytes, GiB } from '../../src/leaves/units.js';

const MB = 1e6;
const rate = fc.double({ min: 1e3, max: 1e10, noNaN: true });
const part = fc.double({ min: 0, max: 1, noNaN: true });

const plainLoads: fc.Arbitrary<TransferLoad> = fc
  .record({
    allocated: fc.integer({ min: 1, max: 2 ** 45 }),
    leftPart: part,
    netRate: rate,
    dirtyRate: fc.oneof(fc.constant(0), rate),
    writeRate: fc.oneof(fc.constant(0), rate),
    netPart: part,
    dirtyPart: part,
    converging: fc.boolean(),
  })
  .map(({ allocated, leftPart, netPart, dirtyPart, ...load }) => ({
    ...load,
    allocated: bytes(allocated),
    left: bytes(Math.ceil(allocated * leftPart)),
    netDeviation: load.netRate * netPart * 2,
    dirtyDeviation: load.dirtyRate * dirtyPart * 2,
  }));

/** Whatever a meter may come to: rates decay through all magnitudes once nothing moves. */
const anyRate = fc.oneof(
  fc.double({ min: 0, noNaN: true, noDefaultInfinity: true }),
  fc.integer({ min: -1074, max: 1023 }).map((exponent) => 2 ** exponent),
  fc.constantFrom(0, Number.MIN_VALUE, Number.MAX_VALUE),
  rate,
);

const segmentLoads: fc.Arbitrary<readonly SegmentLoad[]> = fc.array(
  fc
    .record({
      ahead: fc.boolean(),
      allocated: fc.integer({ min: 0, max: 2 ** 40 }),
      dirtyPart: part,
      touchedPart: part,
    })
    .map(({ ahead, allocated, dirtyPart, touchedPart }) => ({
      ahead,
      allocated: bytes(allocated),
      dirty: bytes(Math.floor(allocated * dirtyPart)),
      touched: bytes(Math.floor(allocated * touchedPart)),
    })),
  { minLength: 1, maxLength: 20 },
);

const detailedLoads: fc.Arbitrary<TransferLoad> = fc
  .record({
    load: plainLoads,
    segments: segmentLoads,
    inFlight: fc.integer({ min: 0, max: 2 ** 24 }),
    begunPart: part,
    writes: fc.record({
      blocksPerByte: fc.double({ min: 0, max: 16, noNaN: true }),
      workingSet: fc.integer({ min: 0, max: 2 ** 45 }).map(bytes),
      sequential: part,
      mirrored: part,
    }),
  })
  .map(({ load, segments, inFlight, begunPart, writes }) => {
    const sum = (of: (segment: SegmentLoad) => number): number =>
      segments.reduce((n, each) => n + of(each), 0);
    const left = bytes(sum(({ dirty }) => dirty) + inFlight);
    const allocated = bytes(
      Math.max(
        left,
        sum((each) => each.allocated),
      ),
    );
    const begunWith = bytes(Math.floor(allocated * begunPart));
    return { ...load, left, allocated, segments, begunWith, writes };
  });

const inOrder = (load: TransferLoad): boolean => {
  const estimate = timeLeft(load);
  if (!estimate) return false;
  const { low, expected, high } = estimate;
  return low >= 0 && low <= expected && expected <= high && Number.isFinite(expected);
};

t.test('property: the estimate is a number within its band, whatever the load', async () => {
  fc.assert(fc.property(fc.oneof(plainLoads, detailedLoads), inOrder), { numRuns: 1000 });
});

t.test('property: the same for rates of every magnitude, down to the least number above 0', async () => {
  const rates = fc.record({
    netRate: anyRate.filter((net) => net > 0),
    dirtyRate: anyRate,
    writeRate: anyRate,
    netDeviation: anyRate,
    dirtyDeviation: anyRate,
    blocksPerByte: anyRate,
  });
  fc.assert(
    fc.property(fc.oneof(plainLoads, detailedLoads), rates, (load, { blocksPerByte, ...change }) =>
      inOrder({
        ...load,
        ...change,
        ...(load.writes && { writes: { ...load.writes, blocksPerByte } }),
      }),
    ),
    { numRuns: 3000 },
  );
});

t.test('property: without segments, more network is not later, and more left is not earlier', async () => {
  fc.assert(
    fc.property(plainLoads, fc.double({ min: 1, max: 100, noNaN: true }), part, (load, factor, more) => {
      const { expected } = timeLeft(load)!;
      const faster = timeLeftWith(load, { netRate: load.netRate * factor })!;
      const left = Math.ceil(load.left + (load.allocated - load.left) * more) as Bytes;
      const fuller = timeLeft({ ...load, left })!;
      const rounding = 1 + 1e-6;
      return faster.expected <= expected * rounding && fuller.expected * rounding >= expected;
    }),
    { numRuns: 1000 },
  );
});

t.test(
  'property: a limit of the writes makes it no later, and one that they do not reach changes nothing',
  async () => {
    fc.assert(
      fc.property(plainLoads, part, (load, share) => {
        const { expected } = timeLeft(load)!;
        const limited = timeLeftWith(load, { writeLimit: load.writeRate * share })!;
        const above = timeLeftWith(load, { writeLimit: load.writeRate + 1 })!;
        return limited.expected <= expected * (1 + 1e-6) && above.expected === expected;
      }),
    );
  },
);

const still: TransferLoad = {
  left: bytes(600 * MB),
  allocated: bytes(GiB),
  netRate: 10 * MB,
  dirtyRate: 0,
  writeRate: 0,
  netDeviation: 0,
  dirtyDeviation: 0,
  converging: false,
};

t.test('without writes it is what is left by the rate, with or without segments', async (t) => {
  t.equal(timeLeft(still)?.expected, 60_000);
  const segments = [
    { ahead: false, allocated: bytes(GiB - 600 * MB), dirty: bytes(0), touched: bytes(0) },
    { ahead: true, allocated: bytes(600 * MB), dirty: bytes(600 * MB), touched: bytes(0) },
  ];
  const writes = { blocksPerByte: 0, workingSet: bytes(0), sequential: 0, mirrored: 0 };
  t.equal(timeLeft({ ...still, segments, writes, begunWith: bytes(GiB) })?.expected, 60_000);
});

t.test('nothing left takes no time; nothing acknowledged yet says nothing', async (t) => {
  t.strictSame(timeLeft({ ...still, left: bytes(0) }), { expected: 0, low: 0, high: 0 });
  t.equal(timeLeft({ ...still, netRate: 0 }), undefined);
});

t.test('writes faster than the network do not make it endless: it converges', async (t) => {
  const outrun = { ...still, dirtyRate: 40 * MB, writeRate: 40 * MB };
  const estimate = timeLeft(outrun)!;
  t.ok(estimate.expected >= 60_000);
  t.ok(estimate.expected <= (3 * 1e3 * outrun.allocated) / outrun.netRate, `${estimate.expected} ms`);
});

t.test('a rate as uncertain as it is high leaves the band without an upper end', async (t) => {
  const wild = { ...still, left: bytes(MB), netDeviation: 10 * MB };
  t.equal(timeLeft(wild)?.high, Number.POSITIVE_INFINITY);
  t.ok(timeLeft({ ...still, netDeviation: MB })!.high < 90_000);
});
