import t from 'tap';
import type { Clock } from '../../src/leaves/clock.js';
import { TokenBucket } from '../../src/leaves/token-bucket.js';
import type { Millis } from '../../src/leaves/units.js';
import { bytesPerSecond, KiB, MiB, UNLIMITED } from '../../src/leaves/units.js';

/** Time that passes when told to. */
class ManualClock implements Clock {
  #now = 0;
  #timers: { at: number; callback: () => void }[] = [];

  now(): Millis {
    return this.#now as Millis;
  }

  wall(): Millis {
    return this.now();
  }

  after(delay: Millis, callback: () => void): () => void {
    const timer = { at: this.#now + delay, callback };
    this.#timers.push(timer);
    return () => {
      this.#timers = this.#timers.filter((other) => other !== timer);
    };
  }

  /** Runs timers in order, and what waits for them. */
  async advance(milliseconds: number): Promise<void> {
    const end = this.#now + milliseconds;
    for (;;) {
      await new Promise((resolve) => setImmediate(resolve));
      const next = this.#timers.filter(({ at }) => at <= end).sort((a, b) => a.at - b.at)[0];
      if (!next) break;
      this.#now = Math.max(this.#now, next.at);
      this.#timers = this.#timers.filter((other) => other !== next);
      next.callback();
    }
    this.#now = end;
    await new Promise((resolve) => setImmediate(resolve));
  }
}

t.test('without a limit everybody passes at once', async (t) => {
  const bucket = new TokenBucket(new ManualClock(), UNLIMITED);
  for (let i = 0; i < 100; i++) t.equal(bucket.take(10 * MiB, 'copy'), undefined);
});

t.test('the long-run rate is exact, whatever the amounts', async (t) => {
  for (const amount of [1 * KiB, 64 * KiB, 512 * KiB, 4 * MiB]) {
    const clock = new ManualClock();
    const bucket = new TokenBucket(clock, bytesPerSecond(1 * MiB));
    let granted = 0;
    let stopped = false;
    const taker = (async () => {
      while (!stopped) {
        await bucket.take(amount, 'copy');
        granted += amount;
      }
    })();
    await clock.advance(60_000);
    stopped = true;
    const expected = 60 * MiB;
    t.ok(granted > expected * 0.97 && granted < expected * 1.03 + amount, `${amount}: ${granted / MiB} MiB`);
    bucket.setRate(UNLIMITED);
    await taker;
  }
});

t.test('two lanes that wait share the bytes evenly, in order within a lane', async (t) => {
  const clock = new ManualClock();
  const bucket = new TokenBucket(clock, bytesPerSecond(1 * MiB));
  const got = { copy: 0, write: 0 };
  const order: number[] = [];
  for (let i = 0; i < 200; i++) {
    void bucket.take(512 * KiB, 'copy')?.then(() => {
      got.copy += 512 * KiB;
    });
  }
  for (let i = 0; i < 20_000; i++) {
    void bucket.take(4 * KiB, 'write')?.then(() => {
      got.write += 4 * KiB;
      order.push(i);
    });
  }
  await clock.advance(30_000);
  const share = got.write / (got.write + got.copy);
  t.ok(share > 0.45 && share < 0.55, `share of the small ones: ${share}`);
  t.strictSame(
    order,
    order.toSorted((a, b) => a - b),
  );
});

t.test('a writer that waits for each answer has its half beside large copies, within the rate', async (t) => {
  const clock = new ManualClock();
  const bucket = new TokenBucket(clock, bytesPerSecond(10 * MiB));
  const got = { copy: 0, write: 0 };
  const slowest = { copy: 0, write: 0 };
  let stopped = false;
  const use = async (lane: 'copy' | 'write', amount: number, pause: number): Promise<void> => {
    while (!stopped) {
      const asked = clock.now();
      await bucket.take(amount, lane);
      slowest[lane] = Math.max(slowest[lane], clock.now() - asked);
      got[lane] += amount;
      if (pause > 0) await new Promise<void>((resolve) => clock.after(pause as Millis, resolve));
    }
  };
  const users = [use('copy', 200 * KiB, 0), use('write', 16 * KiB, 1)];
  await clock.advance(20_000);
  const { copy, write } = got;
  t.ok(write > 0.45 * (copy + write) && write < 0.55 * (copy + write), `${write} of ${copy + write}`);
  t.ok(copy + write < 200 * MiB * 1.01, `${(copy + write) / MiB} MiB in 20 s`);
  t.ok(slowest.write <= 60 && slowest.copy <= 100, `waited ${slowest.write} and ${slowest.copy} ms`);
  stopped = true;
  bucket.setRate(UNLIMITED);
  await clock.advance(10);
  await Promise.all(users);
});

t.test('a lane that was idle saves nothing up and owes nothing', async (t) => {
  const clock = new ManualClock();
  const bucket = new TokenBucket(clock, bytesPerSecond(1 * MiB));
  let stopped = false;
  let copied = 0;
  void (async () => {
    while (!stopped) {
      await bucket.take(64 * KiB, 'copy');
      copied += 64 * KiB;
    }
  })();
  await clock.advance(20_000);
  const before = copied;
  let written = 0;
  for (let i = 0; i < 5_000; i++)
    void bucket.take(4 * KiB, 'write')?.then(() => {
      written += 4 * KiB;
    });
  await clock.advance(10_000);
  stopped = true;
  t.ok(copied - before > 4 * MiB && written > 4 * MiB, `copied ${copied - before}, written ${written}`);
  bucket.setRate(UNLIMITED);
});

t.test('a new rate reaches those who wait', async (t) => {
  const clock = new ManualClock();
  const bucket = new TokenBucket(clock, bytesPerSecond(1 * KiB));
  bucket.take(1 * MiB, 'copy');
  let granted = false;
  void bucket.take(64 * KiB, 'write')?.then(() => {
    granted = true;
  });
  await clock.advance(5_000);
  t.notOk(granted);
  bucket.setRate(bytesPerSecond(100 * MiB));
  await clock.advance(1_100);
  t.ok(granted);
});

t.test('an aborted wait takes nothing', async (t) => {
  const clock = new ManualClock();
  const bucket = new TokenBucket(clock, bytesPerSecond(1 * MiB));
  bucket.take(1 * MiB, 'copy');
  const controller = new AbortController();
  const waiting = bucket.take(100 * MiB, 'write', controller);
  controller.abort(new Error('not wanted any more'));
  await t.rejects(waiting!, { message: 'not wanted any more' });
  t.equal(bucket.waiting, 0);
  await clock.advance(1_500);
  t.equal(bucket.take(1, 'write'), undefined);
});

t.test('what is given back may be taken again', async (t) => {
  const bucket = new TokenBucket(new ManualClock(), bytesPerSecond(1 * MiB));
  bucket.take(1 * MiB, 'copy');
  bucket.give(1 * MiB);
  t.equal(bucket.take(1, 'copy'), undefined);
});
