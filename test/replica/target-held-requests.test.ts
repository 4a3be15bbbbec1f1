import t from 'tap';
import type { RoutedRequest } from '../../src/fs/participant.js';
import type { Clock } from '../../src/leaves/clock.js';
import type { Millis } from '../../src/leaves/units.js';
import { KiB, MiB, millis } from '../../src/leaves/units.js';
import { HeldRequests } from '../../src/replica/target/held-requests.js';

const EROFS = -30;
const REQUEST: RoutedRequest = {
  op: 'truncate',
  slot: 0,
  fd: 0,
  reply: { kind: 'port', id: 1 },
  size: 0,
};

/** Time that passes when the test says so. */
class ManualClock implements Clock {
  #now = 0;
  readonly #timers = new Set<{ at: number; callback: () => void }>();

  now(): Millis {
    return millis(this.#now);
  }

  wall(): Millis {
    return millis(this.#now);
  }

  after(delay: Millis, callback: () => void): () => void {
    const timer = { at: this.#now + delay, callback };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  }

  advanceTo(seconds: number): void {
    this.#now = seconds * 1000;
    for (const timer of [...this.#timers])
      if (timer.at <= this.#now && this.#timers.delete(timer)) timer.callback();
  }
}

const writeOf = (payload: Uint8Array): RoutedRequest => ({
  op: 'write',
  slot: 0,
  fd: 0,
  reply: { kind: 'port', id: 1 },
  offset: 0,
  payload,
});

const setUp = () => {
  const clock = new ManualClock();
  const expired: number[] = [];
  const results: number[] = [];
  const held = new HeldRequests(clock, (count) => expired.push(count));
  const hold = (request: RoutedRequest = REQUEST): void =>
    held.hold(request, (result) => results.push(result));
  return { clock, expired, results, held, hold };
};

t.test('while the source can be reached a guest waits for 30 s', async (t) => {
  const { clock, expired, results, hold } = setUp();
  hold();
  clock.advanceTo(20);
  hold();
  clock.advanceTo(29.9);
  t.same(results, []);
  clock.advanceTo(30);
  t.same(results, [EROFS, EROFS]);
  t.same(expired, [2]);
});

t.test('for 10 s without a connection, whether it was lost before or since', async (t) => {
  const { clock, expired, results, held, hold } = setUp();
  hold();
  clock.advanceTo(5);
  held.setConnected(false);
  held.setConnected(false);
  clock.advanceTo(14.9);
  t.same(results, []);
  clock.advanceTo(15);
  t.same(results, [EROFS]);
  clock.advanceTo(20);
  hold();
  clock.advanceTo(29.9);
  t.same(expired, [1]);
  clock.advanceTo(30);
  t.same(expired, [1, 1]);
});

t.test('a connection that comes back gives the guest its time, but a loss never adds to it', async (t) => {
  const { clock, results, held, hold } = setUp();
  hold();
  clock.advanceTo(5);
  held.setConnected(false);
  clock.advanceTo(12);
  held.setConnected(true);
  clock.advanceTo(25);
  t.same(results, []);
  held.setConnected(false);
  clock.advanceTo(30);
  t.same(results, [EROFS]);
});

t.test('everything that the queues of a VM have under way is held', async (t) => {
  const { results, held, hold } = setUp();
  const disks = 4;
  const queued = 1024;
  const payload = new Uint8Array(256 * KiB);
  for (let i = 0; i < disks * queued; i++) hold(writeOf(payload));
  t.same(results, [], 'nothing is refused');
  t.equal(held.size, disks * queued);
});

t.test('what is held is bounded, in requests and in bytes', async (t) => {
  const small = setUp();
  for (let i = 0; i < 16_384; i++) small.hold();
  t.same(small.results, []);
  small.hold();
  t.same(small.results, [EROFS]);
  const large = setUp();
  const payload = new Uint8Array(1 * MiB);
  for (let i = 0; i < 1024; i++) large.hold(writeOf(payload));
  t.same(large.results, []);
  large.hold(writeOf(payload.subarray(0, 1)));
  t.same(large.results, [EROFS]);
  large.held.refuseAll();
  large.hold(writeOf(payload));
  t.equal(large.held.size, 1, 'there is room again');
});
