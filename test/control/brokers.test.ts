/** The service Brokers, and the terms of a broker in a start request, as they travel. */
import t from 'tap';
import { connect } from '../../src/control/control-client.js';
import type { BrokerSnapshot, PathLink } from '../../src/leaves/broker.js';
import { parseHostPort } from '../../src/leaves/host-port.js';
import { bytes, bytesPerSecond, millis, UNLIMITED } from '../../src/leaves/units.js';
import { controlFixture } from '../support/control-fixture.js';
import { brokerExample, FakeBrokerControl } from '../support/fake-broker-control.js';

const brokers = new FakeBrokerControl();
const fixture = await controlFixture(undefined, brokers);
const client = connect({ server: parseHostPort(fixture.server.address) });
t.teardown(async () => {
  client.close();
  await fixture.server.close();
});
t.beforeEach(() => {
  brokers.brokers.clear();
  brokers.calls.length = 0;
  brokers.answer = 'obeyed';
  fixture.control.calls.length = 0;
});

const start = {
  images: ['a'],
  target: 'b:1',
  cutover: 'explicit',
  netLimit: UNLIMITED,
  diskLimit: UNLIMITED,
  priority: 0,
} as const;

t.test('GetBroker and ListBrokers carry every field, and leave out what is not known', async (t) => {
  const { ratio: _none, decidedAt: _never, ...known } = brokerExample;
  const fresh: BrokerSnapshot = {
    ...known,
    migrationId: 'm2',
    path: [],
    zone: 'calm',
    netLimit: UNLIMITED,
    diskLimit: bytesPerSecond(1_500),
    hotLinks: [],
    askedBy: [],
    bytesLeft: bytes(0),
    decisions: 0,
    ended: true,
  };
  for (const snapshot of [brokerExample, fresh]) brokers.brokers.set(snapshot.migrationId, snapshot);
  t.same(await client.broker('m1'), brokerExample);
  t.same(await client.brokers(), [brokerExample, fresh]);
  await t.rejects(client.broker('m9'), { code: 'NOT_FOUND', message: /no broker of migration m9/ });
});

t.test('SetBrokerPath hands the path over', async (t) => {
  brokers.brokers.set('m1', { ...brokerExample, path: [] });
  t.same(await client.setBrokerPath('m1', brokerExample.path), brokerExample);
  t.same(brokers.calls, [['setPath', 'm1', brokerExample.path]]);
});

t.test('a path that can never work is refused before the broker sees it', async (t) => {
  const sharers = [{ server: 'h:1', migrationId: 'm2' }];
  const link = (change: object): PathLink => ({ link: 'l', sharers: [], ...change });
  const bad: [string, readonly PathLink[], RegExp][] = [
    ['no name', [link({ link: '' })], /link is not 1 to 128/],
    ['a long name', [link({ link: 'x'.repeat(129) })], /link is not 1 to 128/],
    ['a name of two lines', [link({ link: 'a\nb' })], /printable/],
    ['a link twice', [link({}), link({})], /twice/],
    ['too many links', Array.from({ length: 65 }, (_, i) => link({ link: `l${i}` })), /65 links/],
    ['too many sharers', [link({ sharers: Array.from({ length: 257 }, () => sharers[0]) })], /257 sharers/],
    ['a sharer nowhere', [link({ sharers: [{ server: 'h', migrationId: 'm2' }] })], /not an address/],
    ['a sharer at port 0', [link({ sharers: [{ server: 'h:0', migrationId: 'm2' }] })], /no port/],
    ['a sharer without an id', [link({ sharers: [{ server: 'h:1', migrationId: '' }] })], /migration_id/],
  ];
  for (const [what, path, message] of bad)
    await t.rejects(client.setBrokerPath('m1', path), { code: 'INVALID_ARGUMENT', message }, what);
  await t.rejects(client.setBrokerPath('', []), { code: 'INVALID_ARGUMENT' });
  t.same(brokers.calls, []);
});

t.test('BackOff brings the request there and each answer back', async (t) => {
  const request = { migrationId: 'm1', from: 'm7', link: 'tor3', validFor: millis(1_500), ratio: 1.25 };
  for (const answer of ['obeyed', 'in-danger', 'ended'] as const) {
    brokers.answer = answer;
    t.equal(await client.backOff(request), answer);
  }
  t.same(brokers.calls[0], ['backOff', request]);
  brokers.calls.length = 0;
  const bad: [object, RegExp][] = [
    [{ migrationId: '' }, /migration_id/],
    [{ from: 'x'.repeat(129) }, /from is not/],
    [{ link: '' }, /link is not/],
    [{ validFor: millis(600_001) }, /valid_for_ms of 600001 is out of range/],
    [{ ratio: Number.NaN }, /ratio/],
    [{ ratio: Number.POSITIVE_INFINITY }, /ratio/],
  ];
  for (const [change, message] of bad)
    await t.rejects(client.backOff({ ...request, ...change }), { code: 'INVALID_ARGUMENT', message });
  t.same(brokers.calls, []);
});

t.test('a call that is given up ends at once', async (t) => {
  brokers.backOff = () => new Promise(() => {});
  const stop = new AbortController();
  const call = client.backOff(
    { migrationId: 'm1', from: 'm7', link: 'l', validFor: millis(1), ratio: 1 },
    stop.signal,
  );
  stop.abort();
  await t.rejects(call, { code: 'CANCELLED' });
});

t.test('StartMigration hands the terms of the broker over, and nothing where nothing was said', async (t) => {
  const started = async (broker?: Parameters<typeof client.start>[0]['broker']): Promise<unknown> => {
    fixture.control.calls.length = 0;
    await client.start({ ...start, ...(broker && { broker }) });
    return (fixture.control.calls[0] as [string, { broker?: unknown }])[1].broker;
  };
  t.same(await started(brokerExample.terms), brokerExample.terms);
  t.same(await started({ danger: 2 }), { danger: 2 });
  t.equal(await started('off'), 'off');
  t.equal(await started(), undefined);
});

t.test('terms out of range are refused', async (t) => {
  const bad: [object, RegExp][] = [
    [{ danger: 1 }, /danger or warning of 1 is out of range/],
    [{ warning: 1 }, /danger or warning of 1/],
    [{ danger: 1001 }, /danger/],
    [{ danger: Number.NaN }, /danger/],
    [{ danger: 3, warning: 2.5 }, /the warning ratio 2.5 is below the danger ratio 3/],
    [{ warning: 0.5 }, /warning/],
    [{ period: millis(99) }, /period_ms/],
    [{ quietPeriods: 1001 }, /quiet_periods/],
    [{ vmmTime: millis(86_400_001) }, /vmm_time_ms/],
    [{ floor: UNLIMITED }, /floor_kb_per_s of 0 is out of range/],
  ];
  for (const [broker, message] of bad)
    await t.rejects(client.start({ ...start, broker }), { code: 'INVALID_ARGUMENT', message });
  t.same(fixture.control.calls, []);
});
