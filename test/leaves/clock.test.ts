import t from 'tap';
import { resultWithin } from '../../src/leaves/clock.js';
import { millis } from '../../src/leaves/units.js';
import { ManualClock } from '../support/manual-clock.js';

t.test('a result is waited for as long as was said', async (t) => {
  const clock = new ManualClock();
  t.equal(await resultWithin(clock, millis(10), Promise.resolve('there')), 'there');
  t.equal(await resultWithin(clock, millis(10), Promise.reject(new Error('gone'))), undefined);
  const slow = resultWithin(clock, millis(10), new Promise(() => {}));
  await clock.advance(9);
  t.equal(await Promise.race([slow, Promise.resolve('waits')]), 'waits');
  await clock.advance(1);
  t.equal(await slow, undefined);
});

t.test('what rejects when nobody waits any more is no unhandled rejection', async (t) => {
  const clock = new ManualClock();
  let fail: (error: Error) => void = () => {};
  const result = resultWithin(
    clock,
    millis(10),
    new Promise((_, reject) => {
      fail = reject;
    }),
  );
  await clock.advance(10);
  t.equal(await result, undefined);
  const unhandled: unknown[] = [];
  const note = (reason: unknown): void => void unhandled.push(reason);
  process.on('unhandledRejection', note);
  t.teardown(() => process.off('unhandledRejection', note));
  fail(new Error('late'));
  await new Promise(setImmediate);
  t.same(unhandled, []);
});
