import t from 'tap';
import type { Clock } from '../../src/leaves/clock.js';
import type { Millis } from '../../src/leaves/units.js';
import { RateMeter } from '../../src/replica/source/rate-meter.js';

const clockAt = (time: { ms: number }): Clock => ({
  now: () => time.ms as Millis,
  wall: () => time.ms as Millis,
  after: () => () => {},
});

t.test('a steady rate is reported as it is, from the first second on', async (t) => {
  const time = { ms: 0 };
  const meter = new RateMeter(clockAt(time));
  for (time.ms = 10; time.ms <= 10_000; time.ms += 10) {
    meter.add(1000);
    if (time.ms === 500 || time.ms === 10_000)
      t.ok(Math.abs(meter.rate - 100_000) < 5_000, `after ${time.ms} ms: ${meter.rate}`);
  }
});

t.test('it falls when nothing happens', async (t) => {
  const time = { ms: 0 };
  const meter = new RateMeter(clockAt(time));
  for (time.ms = 10; time.ms <= 5_000; time.ms += 10) meter.add(1000);
  time.ms += 10_000;
  t.ok(meter.rate < 1_000, `${meter.rate}`);
});
