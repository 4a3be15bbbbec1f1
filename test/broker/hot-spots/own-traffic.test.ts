import t from 'tap';
import { meterOwnTraffic } from '../../../src/broker/hot-spots/own-traffic.js';
import type { MigrationSnapshot } from '../../../src/leaves/migration.js';
import { ManualClock } from '../../support/manual-clock.js';

const fixture = () => {
  const clock = new ManualClock(5000);
  const listeners = new Set<(snapshot: MigrationSnapshot) => void>();
  const meter = meterOwnTraffic(
    {
      watch: (listener) => {
        listeners.add(listener);
        return () => listeners.delete(listener);
      },
    },
    clock,
  );
  const say = (id: string, bytesSent: number, more: object = {}): void => {
    const snapshot = {
      id,
      role: 'source',
      state: 'bulk-copy',
      peer: '10.0.0.2:7071',
      bytesSent,
      ...more,
    };
    for (const listener of listeners) listener(snapshot as unknown as MigrationSnapshot);
  };
  return { clock, meter, listeners, say };
};

t.test('the rate is known from the second snapshot on', async (t) => {
  const { clock, meter, say } = fixture();
  say('a', 0);
  t.strictSame(meter.traffic(), [{ host: '10.0.0.2', sent: Infinity, received: 0 }], 'it could be anything');
  await clock.advance(500);
  say('a', 5_000_000);
  t.strictSame(meter.traffic(), [{ host: '10.0.0.2', sent: 10_000_000, received: 0 }]);
});

t.test('a migration that has become faster counts as what it is now', async (t) => {
  const { clock, meter, say } = fixture();
  let sent = 0;
  for (const step of [0, 1e6, 1e6, 1e6, 10e6]) {
    sent += step;
    say('a', sent);
    await clock.advance(500);
  }
  t.match(meter.traffic(), [{ sent: 20e6 }], '10 MB in the last half second');
});

t.test('one that has become slower counts by the whole window', async (t) => {
  const { clock, meter, say } = fixture();
  let sent = 0;
  for (const step of [0, 10e6, 10e6, 1e6]) {
    sent += step;
    say('a', sent);
    await clock.advance(500);
  }
  t.match(meter.traffic(), [{ sent: 14e6 }], '21 MB in a second and a half');
});

t.test('while nothing new is sent, what is still being acknowledged counts', async (t) => {
  const { clock, meter, say } = fixture();
  for (const bytesAcked of [0, 4e6, 8e6, 12e6]) {
    say('a', 18e6, { bytesAcked });
    await clock.advance(500);
  }
  t.match(meter.traffic(), [{ sent: 12e6 }], 'all 18 MB may have left in a second and a half');
});

t.test('what says nothing any more moves nothing, and what has ended is forgotten', async (t) => {
  const { clock, meter, say } = fixture();
  say('a', 0);
  await clock.advance(500);
  say('a', 1e6);
  await clock.advance(4001);
  t.match(meter.traffic(), [{ sent: 0 }]);
  say('a', 1e6, { state: 'completed' });
  t.strictSame(meter.traffic(), []);
});

t.test('at the target the same bytes are received', async (t) => {
  const { clock, meter, say } = fixture();
  say('a', 0, { role: 'target' });
  await clock.advance(1000);
  say('a', 3e6, { role: 'target' });
  t.strictSame(meter.traffic(), [{ host: '10.0.0.2', sent: 0, received: 3e6 }]);
});

t.test('a peer that names no address has none', async (t) => {
  const { meter, say } = fixture();
  for (const [i, peer] of ['0.0.0.0:7071', '[::]:7071', 'nonsense'].entries()) say(String(i), 0, { peer });
  for (const traffic of meter.traffic()) t.notOk('host' in traffic);
  t.equal(meter.traffic().length, 3);
});

t.test('closing ends it', async (t) => {
  const { meter, listeners } = fixture();
  meter.close();
  t.equal(listeners.size, 0);
});
