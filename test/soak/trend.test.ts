import t from 'tap';
import { Random } from '../support/random.js';
import { isFlat, SAMPLES_MIN, type Sample, trendOf } from './trend.js';

const SEED = 20_240_917;
const MB = 1e6;
const TOLERANCE = { absolute: 12 * MB, share: 0.05 };
const COUNT = 96;
const EVERY_SECONDS = 5;
const WHOLE = (COUNT - 1) * EVERY_SECONDS;

/** `COUNT` samples of a level with noise of ± `noise` and a growth in bytes per second. */
const series = (level: number, noise: number, growth: number): Sample[] => {
  const random = new Random(SEED);
  return Array.from({ length: COUNT }, (_, i) => ({
    at: i * EVERY_SECONDS,
    value: level + growth * i * EVERY_SECONDS + (random.below(2001) / 1000 - 1) * noise,
  }));
};

t.test('a straight line is estimated exactly, by both', async (t) => {
  const { level, slopeGrowth, stepGrowth, seconds } = trendOf(series(200 * MB, 0, 50_000));
  t.equal(seconds, WHOLE);
  t.equal(level, 200 * MB + (50_000 * WHOLE) / 2);
  t.equal(Math.round(slopeGrowth), 50_000 * WHOLE);
  // The medians of two quarters are 72 of the 95 steps apart.
  t.equal(Math.round(stepGrowth), Math.round((50_000 * 72 * EVERY_SECONDS * 4) / 3));
});

t.test('noise alone is flat', async (t) => {
  for (const noise of [0, 5 * MB, 20 * MB])
    t.ok(isFlat(trendOf(series(200 * MB, noise, 0)), TOLERANCE), `± ${noise / MB} MB`);
});

t.test('a slow leak below noise that is larger than all of it is found', async (t) => {
  const leak = (20 * MB) / WHOLE;
  t.notOk(isFlat(trendOf(series(200 * MB, 20 * MB, leak)), TOLERANCE));
});

t.test('a sawtooth of collections is flat, a rising one is not', async (t) => {
  const sawtooth = (rise: number): Sample[] =>
    series(200 * MB, 0, rise).map(({ at, value }, i) => ({ at, value: value + (i % 7) * 4 * MB }));
  t.ok(isFlat(trendOf(sawtooth(0)), TOLERANCE));
  t.notOk(isFlat(trendOf(sawtooth((20 * MB) / WHOLE)), TOLERANCE));
});

t.test('a fifth of the samples far off changes nothing', async (t) => {
  const spikes = series(200 * MB, MB, 0).map(({ at, value }, i) => ({
    at,
    value: i > COUNT / 2 && i % 5 === 0 ? value + 300 * MB : value,
  }));
  t.ok(isFlat(trendOf(spikes), TOLERANCE));
});

t.test('a step that stays is growth, although half of all pairs do not see it', async (t) => {
  const step = series(200 * MB, MB, 0).map(({ at, value }, i) => ({
    at,
    value: i < COUNT * 0.8 ? value : value + 30 * MB,
  }));
  t.notOk(isFlat(trendOf(step), TOLERANCE));
});

t.test('what shrinks is flat', async (t) => {
  t.ok(isFlat(trendOf(series(200 * MB, MB, -100_000)), TOLERANCE));
});

t.test('too few samples are refused', async (t) => {
  t.throws(() => trendOf(series(1, 0, 0).slice(0, SAMPLES_MIN - 1)), RangeError);
});
