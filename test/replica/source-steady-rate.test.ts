import t from 'tap';
import { SteadyRate } from '../../src/replica/source/steady-rate.js';

const STEP = 0.25;
const feed = (rate: SteadyRate, seconds: number, value: (at: number) => number): void => {
  for (let at = 0; at < seconds; at += STEP) rate.sample(value(at) * STEP, STEP);
};

t.test('a steady rate is exact from the first sample on, without a deviation', async (t) => {
  const rate = new SteadyRate();
  feed(rate, STEP, () => 1000);
  t.ok(Math.abs(rate.rate - 1000) < 1e-6, `${rate.rate}`);
  feed(rate, 60, () => 1000);
  t.ok(Math.abs(rate.rate - 1000) < 1e-6, `${rate.rate}`);
  t.ok(rate.deviation < 1e-3, `${rate.deviation}`);
});

t.test(
  'a load that starts or stops is known within two seconds, however long the other lasted',
  async (t) => {
    const rate = new SteadyRate();
    feed(rate, 600, () => 0);
    feed(rate, 2, () => 1000);
    t.ok(Math.abs(rate.rate - 1000) < 50, `started: ${rate.rate}`);
    feed(rate, 600, () => 1000);
    feed(rate, 2, () => 0);
    t.ok(rate.rate < 50, `stopped: ${rate.rate}`);
  },
);

t.test('a load that comes and goes keeps its mean, and has a deviation', async (t) => {
  const rate = new SteadyRate();
  const bursts = (at: number): number => (Math.floor(at / 4) % 2 === 0 ? 1000 : 0);
  feed(rate, 600, bursts);
  t.ok(Math.abs(rate.rate - 500) < 150, `rate ${rate.rate}`);
  t.ok(Math.abs(rate.deviation - 500) < 100, `deviation ${rate.deviation}`);
});
