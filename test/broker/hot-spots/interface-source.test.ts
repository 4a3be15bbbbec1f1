import fc from 'fast-check';
import t from 'tap';
import { hotSpotsConfigOf } from '../../../src/broker/hot-spots/config.js';
import { InterfaceSource } from '../../../src/broker/hot-spots/interface-source.js';
import { LinkBoard } from '../../../src/broker/hot-spots/link-board.js';
import type { InterfaceCounters } from '../../../src/broker/hot-spots/network-interfaces.js';
import type { PeerTraffic } from '../../../src/broker/hot-spots/own-traffic.js';
import type { BytesPerSecond } from '../../../src/leaves/units.js';
import { bytesPerSecond } from '../../../src/leaves/units.js';
import { ManualClock } from '../../support/manual-clock.js';

const CAPACITY = bytesPerSecond(100e6);

interface Flow {
  sent?: number;
  received?: number;
}

/** A host whose interfaces carry what `flows` says, and whose migrations what `own` says. */
class FakeHost {
  readonly clock = new ManualClock(10_000);
  readonly flows = new Map<string, Flow>([['eth0', {}]]);
  readonly speeds = new Map<string, BytesPerSecond>();
  readonly lower = new Map<string, string[]>();
  readonly routes = new Map([['10.0.0.2', 'eth0']]);
  readonly logged: string[] = [];
  own: PeerTraffic[] = [];
  broken = false;
  lookUps = 0;
  readonly #counters = new Map<string, InterfaceCounters>();
  readonly board: LinkBoard;
  readonly source: InterfaceSource;

  constructor(
    t: { teardown(undo: () => void): void },
    config: object = {},
    speed: 'known' | 'unknown' = 'known',
  ) {
    if (speed === 'known') this.speeds.set('eth0', CAPACITY);
    this.board = new LinkBoard(this.clock, () => undefined);
    const { thresholds, interfaces } = hotSpotsConfigOf({ interfaces: config }, true);
    this.source = new InterfaceSource({
      config: interfaces!,
      thresholds,
      board: this.board,
      clock: this.clock,
      log: (_level, message) => this.logged.push(message),
      ownTraffic: () => this.own,
      interfaces: {
        counters: () => {
          if (this.broken) throw new Error('broken');
          return new Map([...this.flows.keys()].map((name) => [name, this.#count(name)]));
        },
        speed: (name) => this.speeds.get(name),
        below: (name) => this.lower.get(name) ?? [],
        towards: async (host) => {
          this.lookUps++;
          const name = this.routes.get(host);
          if (name === undefined) throw new Error('no route');
          return name;
        },
      },
    });
    t.teardown(() => {
      this.source[Symbol.dispose]();
      this.board[Symbol.dispose]();
      if (this.clock.pending > 0) throw new Error('a timer was left');
    });
  }

  #count(name: string): InterfaceCounters {
    return this.#counters.get(name) ?? { sent: 0, received: 0 };
  }

  resetCounters(): void {
    this.#counters.clear();
  }

  /** Half seconds pass, as the source looks. */
  async pass(seconds: number): Promise<void> {
    for (let i = 0; i < seconds * 2; i++) {
      for (const [name, { sent = 0, received = 0 }] of this.flows) {
        const before = this.#count(name);
        this.#counters.set(name, {
          sent: before.sent + sent / 2,
          received: before.received + received / 2,
        });
      }
      await this.clock.advance(500);
    }
  }

  /** Seconds until `truth` holds, in half seconds. */
  async until(truth: () => boolean): Promise<number> {
    let seconds = 0;
    for (; !truth(); seconds += 0.5) {
      if (seconds > 60) throw new Error('not within a minute');
      await this.pass(0.5);
    }
    return seconds;
  }

  get hot(): boolean {
    return this.board.loads().some(({ hot }) => hot);
  }

  get saturated(): boolean {
    return this.board.loads().some(({ saturated }) => saturated);
  }
}

const migrating = (rate: number, more: Partial<PeerTraffic> = {}): PeerTraffic[] => [
  { host: '10.0.0.2', sent: rate, received: 0, ...more },
];

t.test('traffic of others makes a link hot, and it cools when they are gone', async (t) => {
  const host = new FakeHost(t);
  await host.pass(5);
  t.match(host.board.loads(), [
    { link: 'eth0', rate: 0, capacity: CAPACITY, saturated: false, hot: false, source: 'interface eth0' },
  ]);
  host.flows.set('eth0', { sent: 99e6 });
  t.ok((await host.until(() => host.hot)) <= 2, 'a window and the time to rise');
  t.match(host.board.loads(), [{ rate: 99e6 }]);
  host.flows.set('eth0', {});
  t.ok((await host.until(() => !host.saturated)) <= 3.5, 'a window and the time to fall');
});

t.test('the direction that is received counts as well', async (t) => {
  const host = new FakeHost(t);
  host.flows.set('eth0', { received: 99e6, sent: 1e6 });
  await host.until(() => host.hot);
  t.match(host.board.loads(), [{ rate: 99e6 }]);
});

t.test('a migration that has the link to itself saturates it and does not make it hot', async (t) => {
  const host = new FakeHost(t);
  host.flows.set('eth0', { sent: 99e6 });
  // Payload: headers are on the wire only.
  host.own = migrating(94.4e6);
  await host.pass(10);
  t.match(host.board.loads(), [{ saturated: true, hot: false }]);
});

t.test('nor do the headers of its frames', async (t) => {
  const host = new FakeHost(t);
  // 5 % of 89 MB/s are headers, 6 MB/s are of others: less than a tenth of the link.
  host.flows.set('eth0', { sent: 99.5e6 });
  host.own = migrating(89e6);
  await host.pass(10);
  t.match(host.board.loads(), [{ saturated: true, hot: false }]);
});

t.test('others that want a share of what a migration fills make it hot within two seconds', async (t) => {
  const host = new FakeHost(t);
  host.flows.set('eth0', { sent: 99e6 });
  host.own = migrating(94.4e6);
  await host.pass(5);
  host.own = migrating(70e6);
  t.ok((await host.until(() => host.hot)) <= 2);
});

t.test('property: never hot while what is not migrations stays below the share of others', async (t) => {
  const result = await fc.check(
    fc.asyncProperty(
      fc.array(fc.tuple(fc.double({ min: 0, max: 1, noNaN: true }), fc.integer({ min: 1, max: 4 }))),
      async (parts) => {
        const undo: (() => void)[] = [];
        const host = new FakeHost({ teardown: (step) => undo.push(step) });
        let hot = false;
        for (const [part, seconds] of parts) {
          const own = part * 90e6;
          host.own = migrating(own);
          host.flows.set('eth0', { sent: own + 9e6 });
          for (let i = 0; i < seconds; i++) {
            await host.pass(1);
            // The counters lag by their window when a migration ends; the least of both is what is known.
            hot ||= host.hot;
          }
        }
        for (const step of undo) step();
        return !hot;
      },
    ),
    { numRuns: 30 },
  );
  t.notOk(result.failed, fc.defaultReportMessage(result) ?? 'never hot');
});

t.test('traffic of migrations through another interface is no excuse', async (t) => {
  const host = new FakeHost(t);
  host.speeds.set('eth1', CAPACITY);
  host.routes.set('10.1.0.2', 'eth1');
  host.flows.set('eth0', { sent: 99e6 }).set('eth1', {});
  host.own = migrating(94e6, { host: '10.1.0.2' });
  await host.until(() => host.hot);
  t.match(
    host.board.loads().find(({ hot }) => hot),
    { link: 'eth0' },
  );
});

t.test('nor is traffic through loopback; what cannot be told apart is', async (t) => {
  const host = new FakeHost(t);
  host.routes.set('127.0.0.1', 'lo');
  host.flows.set('eth0', { sent: 99e6 });
  host.own = [{ sent: 94.4e6, received: 0 }];
  await host.pass(5);
  t.equal(host.hot, false, 'a peer without an address');
  host.own = migrating(94.4e6, { host: 'host-without-a-route' });
  await host.pass(5);
  t.equal(host.hot, false, 'a peer without a route');
  host.own = migrating(94.4e6, { host: '127.0.0.1' });
  await host.pass(5);
  t.equal(host.hot, true, 'loopback does not cross eth0');
});

t.test('counters that go back begin anew', async (t) => {
  const host = new FakeHost(t);
  host.flows.set('eth0', { sent: 50e6 });
  await host.pass(5);
  host.resetCounters();
  await host.pass(0.5);
  t.match(host.board.loads(), [{ rate: 50e6 }], 'what was known stands until a new rate is');
  await host.pass(2);
  t.match(host.board.loads(), [{ rate: 50e6, saturated: false }]);
});

t.test('an interface that is gone, or counters that cannot be read, are left out', async (t) => {
  const host = new FakeHost(t);
  host.flows.set('eth0', { sent: 99e6 });
  await host.until(() => host.hot);
  host.broken = true;
  await host.pass(3);
  t.strictSame(host.board.loads(), []);
  t.equal(host.logged.filter((line) => /cannot read the counters/.test(line)).length, 1);
  host.broken = false;
  host.flows.set('eth0', {});
  await host.pass(1);
  t.match(host.board.loads(), [{ hot: false, saturated: false }], 'what was before does not count');
});

t.test('without a speed an interface is watched only with a capacity', async (t) => {
  const plain = new FakeHost(t, {}, 'unknown');
  await plain.pass(31);
  t.strictSame(plain.board.loads(), []);
  plain.speeds.set('eth0', CAPACITY);
  await plain.pass(31);
  t.match(plain.board.loads(), [{ link: 'eth0' }], 'a carrier that has come is noticed');

  const links = { eth0: { link: 'host-a', capacity: '10MB/s' } };
  const configured = new FakeHost(t, { links }, 'unknown');
  await configured.pass(1);
  t.match(configured.board.loads(), [{ link: 'host-a', capacity: 10e6, source: 'interface eth0' }]);

  const manual = new FakeHost(t, { automatic: false });
  await manual.pass(2);
  t.strictSame(manual.board.loads(), []);

  const nameOnly = new FakeHost(t, { links: { eth0: { link: 'host-a' } } }, 'unknown');
  await nameOnly.pass(61);
  t.equal(nameOnly.logged.filter((line) => /the speed of eth0 is not known/.test(line)).length, 1);
});

t.test(
  'a link towards a host is known from the second question on, through what a bridge is made of',
  async (t) => {
    const host = new FakeHost(t, { links: { eth0: { link: 'host-a', capacity: '10MB/s' } } });
    host.routes.set('host-b', 'br0').set('near', 'lo').set('elsewhere', 'wlan0');
    host.lower.set('br0', ['vnet1', 'bond0']).set('bond0', ['eth0']);
    for (const name of ['host-b', 'near', 'elsewhere', 'nowhere'])
      t.equal(host.source.linkTowards(name), undefined);
    await host.pass(1);
    t.equal(host.source.linkTowards('host-b'), 'host-a');
    t.equal(host.source.linkTowards('near'), undefined, 'loopback never counts');
    t.equal(
      host.source.linkTowards('elsewhere'),
      'wlan0',
      'an interface that is not watched has its own name',
    );
    t.equal(host.source.linkTowards('nowhere'), undefined);
    t.equal(host.lookUps, 4);
    host.routes.set('host-b', 'wlan0');
    await host.pass(60);
    host.source.linkTowards('host-b');
    await host.pass(1);
    t.equal(host.source.linkTowards('host-b'), 'wlan0', 'routes are looked up again');
  },
);
