import fc from 'fast-check';
import t from 'tap';
import type { Thresholds } from '../../../src/broker/hot-spots/hysteresis.js';
import { LOW, stepped } from '../../../src/broker/hot-spots/hysteresis.js';
import { millis } from '../../../src/leaves/units.js';

const LIMITS: Thresholds = { upper: 0.9, lower: 0.8, rise: millis(1000), fall: millis(2000) };

interface Seen {
  readonly at: number;
  readonly value: number;
}

/** Steps of 0 to 700 ms with values around both thresholds. */
const series = fc
  .array(
    fc.record({
      step: fc.integer({ min: 0, max: 700 }),
      value: fc.constantFrom(0, 0.79, 0.8, 0.85, 0.9, 1.2),
    }),
    { minLength: 1, maxLength: 60 },
  )
  .map((steps) => {
    let at = 0;
    return steps.map(({ step, value }): Seen => {
      at += step;
      return { at, value };
    });
  });

/** Whether it is high after each value. */
const judged = (seen: readonly Seen[], limits = LIMITS): boolean[] => {
  let state = LOW;
  return seen.map(({ at, value }) => {
    state = stepped(state, millis(at), value, limits);
    return state.high;
  });
};

/** How long the values up to `index` have all been past a threshold; negative: the last one is not. */
const heldFor = (seen: readonly Seen[], index: number, past: (value: number) => boolean): number => {
  let from = index;
  while (from >= 0 && past(seen[from]!.value)) from--;
  return from === index ? -1 : seen[index]!.at - seen[from + 1]!.at;
};

t.test('it rises only after all values of `rise` were at or above the upper threshold', async () => {
  fc.assert(
    fc.property(series, (seen) => {
      const high = judged(seen);
      return high.every(
        (now, i) => !now || high[i - 1] === true || heldFor(seen, i, (v) => v >= LIMITS.upper) >= LIMITS.rise,
      );
    }),
  );
});

t.test('it falls only after all values of `fall` were below the lower threshold', async () => {
  fc.assert(
    fc.property(series, (seen) => {
      const high = judged(seen);
      return high.every(
        (now, i) => now || high[i - 1] !== true || heldFor(seen, i, (v) => v < LIMITS.lower) >= LIMITS.fall,
      );
    }),
  );
});

t.test('whatever was before, `rise` above makes it high and `fall` below makes it low', async () => {
  fc.assert(
    fc.property(series, fc.integer({ min: 1, max: 500 }), (seen, step) => {
      const after = (from: number, length: number, value: number): Seen[] =>
        Array.from({ length: Math.ceil(length / step) + 1 }, (_, i) => ({ at: from + i * step, value }));
      const above = after(seen.at(-1)!.at + step, LIMITS.rise, LIMITS.upper);
      const below = after(above.at(-1)!.at + step, LIMITS.fall, LIMITS.lower - 0.01);
      const high = judged([...seen, ...above, ...below]);
      return high[seen.length + above.length - 1] === true && high.at(-1) === false;
    }),
  );
});

t.test('between the thresholds it stays as it is', async () => {
  fc.assert(
    fc.property(series, fc.array(fc.constantFrom(0.8, 0.85, 0.8999), { minLength: 1 }), (seen, values) => {
      const last = seen.at(-1)!.at;
      const high = judged([...seen, ...values.map((value, i) => ({ at: last + (i + 1) * 5000, value }))]);
      return high.slice(seen.length).every((now) => now === high[seen.length - 1]);
    }),
  );
});

t.test('without durations a single value decides', async (t) => {
  const limits = { ...LIMITS, rise: millis(0), fall: millis(0) };
  const seen = [0.5, 0.9, 0.8, 0.79, 0.89].map((value, at) => ({ at, value }));
  t.strictSame(judged(seen, limits), [false, true, true, false, false]);
});
