import t from 'tap';
import { moveWithin } from '../../src/broker/hypervisor/move-limit.js';
import { millis } from '../../src/leaves/units.js';
import { ManualClock } from '../support/manual-clock.js';

const TIMEOUT = millis(60_000);

/** A move that goes on until nobody waits for it any more; `end` is what has become of it by then. */
const setUp = (end: 'moved' | 'not-moved') => {
  const clock = new ManualClock();
  const waiting = new AbortController();
  const done = new AbortController();
  let stops = 0;
  const outcome = moveWithin(
    {
      ...{ clock, timeout: TIMEOUT, failure: 'QEMU did not move vm7', remedy: 'wait longer' },
      move: (signal) =>
        new Promise((resolve, reject) => {
          done.signal.addEventListener('abort', () => resolve());
          signal.addEventListener('abort', () => reject(signal.reason));
        }),
      stop: async () => {
        stops++;
        return end;
      },
    },
    waiting.signal,
  ).then(
    () => 'moved' as const,
    (error: Error) => error,
  );
  return { clock, outcome, finish: () => done.abort(), waiting, stops: () => stops };
};

t.test('a move that is over in time is not stopped', async (t) => {
  const { clock, outcome, finish, stops } = setUp('not-moved');
  await clock.advance(TIMEOUT - 1);
  finish();
  t.equal(await outcome, 'moved');
  t.equal(stops(), 0);
  t.equal(clock.pending, 0, 'no timer is left');
});

t.test('one that takes longer is stopped, and says what helps', async (t) => {
  const { clock, outcome, stops } = setUp('not-moved');
  await clock.advance(TIMEOUT);
  t.match(await outcome, {
    code: 'DEADLINE_EXCEEDED',
    message: 'QEMU did not move vm7 within 1m and was told to give up: wait longer',
  });
  t.equal(stops(), 1);
});

t.test('one that has succeeded before it could be stopped has moved the VM', async (t) => {
  const { clock, outcome, stops } = setUp('moved');
  await clock.advance(TIMEOUT);
  t.equal(await outcome, 'moved');
  t.equal(stops(), 1);
});

t.test('who ends the waiting does not stop the move', async (t) => {
  const { clock, outcome, waiting, stops } = setUp('not-moved');
  const reason = new Error('the scheduler is shutting down');
  waiting.abort(reason);
  t.equal(await outcome, reason);
  await clock.advance(TIMEOUT);
  t.equal(stops(), 0);
});
