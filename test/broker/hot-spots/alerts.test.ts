import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:https';
import { join } from 'node:path';
import t from 'tap';
import { AlertFile } from '../../../src/broker/hot-spots/alert-file.js';
import { BODY_BYTES_MAX, listenForAlerts } from '../../../src/broker/hot-spots/alert-listener.js';
import { AlertSource } from '../../../src/broker/hot-spots/alert-source.js';
import { LinkBoard } from '../../../src/broker/hot-spots/link-board.js';
import { parseHostPort } from '../../../src/leaves/host-port.js';
import { readTlsIdentity } from '../../../src/leaves/tls-identity.js';
import { millis } from '../../../src/leaves/units.js';
import { ManualClock } from '../../support/manual-clock.js';
import { scratchDir } from '../../support/scratch.js';
import { makeTlsFiles } from '../../support/tls-files.js';

const STARTED = Date.parse('2026-11-21T18:00:00Z');

/**
 * A message with all the fields of https://prometheus.io/docs/alerting/latest/configuration/#webhook_config, as
 * Alertmanager fills them: the end of a firing alert is the zero time.
 */
const message = (
  status: 'firing' | 'resolved',
  alert: { readonly labels?: object; readonly endsAt?: string; readonly fingerprint?: string } = {},
): string => {
  const labels = alert.labels ?? { alertname: 'LinkSaturated', link: 'tor3', severity: 'warning' };
  return JSON.stringify({
    version: '4',
    groupKey: '{}:{alertname="LinkSaturated"}',
    truncatedAlerts: 0,
    status,
    receiver: 'migratefs',
    groupLabels: { alertname: 'LinkSaturated' },
    commonLabels: labels,
    commonAnnotations: {},
    externalURL: 'http://alertmanager.example:9093',
    alerts: [
      {
        status,
        labels,
        annotations: { summary: 'tor3 is full' },
        startsAt: '2026-11-21T17:59:30.000Z',
        endsAt: alert.endsAt ?? (status === 'firing' ? '0001-01-01T00:00:00Z' : '2026-11-21T18:01:00.000Z'),
        generatorURL: 'http://prometheus.example:9090/graph',
        fingerprint: alert.fingerprint ?? '1a30ba71cca2921f',
      },
    ],
  });
};

const fixture = ({ path, began = STARTED }: { readonly path?: string; readonly began?: number } = {}) => {
  const clock = new ManualClock(began);
  const logged: string[] = [];
  const log = (_level: string, line: string): void => void logged.push(line);
  const board = new LinkBoard(clock, () => undefined);
  const source = new AlertSource({
    config: { label: 'link', names: new Map([['sw-3.example', 'tor3']]), expiresAfter: millis(60_000) },
    board,
    clock,
    log,
    ...(path !== undefined && { file: new AlertFile(path, log) }),
  });
  return { clock, board, source, logged, [Symbol.dispose]: () => board[Symbol.dispose]() };
};

t.test('a firing alert makes its link hot until it is resolved', async (t) => {
  using alerts = fixture();
  alerts.source.take(message('firing'));
  t.strictSame(alerts.board.loads(), [
    { link: 'tor3', at: STARTED, saturated: true, hot: true, source: 'alert LinkSaturated' },
  ]);
  alerts.source.take(message('resolved'));
  t.strictSame(alerts.board.loads(), []);
});

t.test('what fires is known to the next process, for as long as it would have counted', async (t) => {
  const folder = scratchDir(t, 'alerts');
  mkdirSync(folder, { recursive: true });
  const path = join(folder, 'alerts.json');
  const begin = () => fixture({ path });
  {
    using alerts = begin();
    alerts.source.take(message('firing'));
    alerts.source.take(message('firing', { fingerprint: 'b', labels: { alertname: 'B', link: 'tor4' } }));
    alerts.source.take(message('resolved', { fingerprint: 'b', labels: { alertname: 'B', link: 'tor4' } }));
  }
  {
    using alerts = fixture({ path, began: STARTED + 40_000 });
    t.strictSame(alerts.board.loads(), [
      { link: 'tor3', at: STARTED, saturated: true, hot: true, source: 'alert LinkSaturated' },
    ]);
    await alerts.clock.advance(20_000);
    t.strictSame(alerts.board.loads(), [], 'not longer than without the restart');
  }
  {
    using alerts = begin();
    alerts.source.take(message('resolved'));
    t.strictSame(alerts.board.loads(), [], 'and it can be resolved');
  }
  using alerts = begin();
  t.strictSame(alerts.board.loads(), []);
});

t.test('a file of alerts from another clock, or that is damaged, does no harm', async (t) => {
  const folder = scratchDir(t, 'alerts');
  mkdirSync(folder, { recursive: true });
  const path = join(folder, 'alerts.json');
  const alert = { key: 'alert a', link: 'tor3', name: 'A', at: STARTED, until: STARTED + 86_400_000 };
  writeFileSync(path, JSON.stringify([alert, { ...alert, link: 'a b' }, { ...alert, until: null }, null, 5]));
  {
    using alerts = fixture({ path });
    t.match(alerts.board.loads(), [{ link: 'tor3' }]);
    await alerts.clock.advance(60_000);
    t.strictSame(alerts.board.loads(), [], 'bounded by expires-after');
  }
  writeFileSync(path, '[{');
  using alerts = fixture({ path });
  t.strictSame(alerts.board.loads(), []);
  rmSync(folder, { recursive: true });
  alerts.source.take(message('firing'));
  t.equal(alerts.board.loads().length, 1, 'one that cannot be kept counts');
  t.match(alerts.logged[0], `cannot keep the alerts in ${path}`);
});

t.test('one that is not sent again expires, one that is does not', async (t) => {
  using alerts = fixture();
  alerts.source.take(message('firing'));
  await alerts.clock.advance(50_000);
  alerts.source.take(message('firing'));
  await alerts.clock.advance(50_000);
  t.equal(alerts.board.loads().length, 1);
  await alerts.clock.advance(10_000);
  t.strictSame(alerts.board.loads(), []);
});

t.test('an end that is known comes before the expiry', async (t) => {
  using alerts = fixture();
  alerts.source.take(message('firing', { endsAt: '2026-11-21T18:00:10Z' }));
  await alerts.clock.advance(9999);
  t.equal(alerts.board.loads().length, 1);
  await alerts.clock.advance(1);
  t.strictSame(alerts.board.loads(), []);
  alerts.source.take(message('firing', { endsAt: '2026-11-21T18:00:10Z' }));
  t.strictSame(alerts.board.loads(), [], 'and one in the past is the end');
});

t.test('two alerts on a link are two: one resolved leaves the other', async (t) => {
  using alerts = fixture();
  alerts.source.take(message('firing', { fingerprint: 'a1' }));
  alerts.source.take(
    message('firing', { fingerprint: 'b2', labels: { alertname: 'Drops', link: 'sw-3.example' } }),
  );
  alerts.source.take(message('resolved', { fingerprint: 'a1' }));
  t.match(alerts.board.loads(), [{ link: 'tor3', source: 'alert Drops' }]);
});

t.test('without a fingerprint the labels tell alerts apart', async (t) => {
  using alerts = fixture();
  const [one, other] = [
    { alertname: 'A', link: 'tor3' },
    { link: 'tor3', alertname: 'A' },
  ];
  alerts.source.take(message('firing', { fingerprint: '', labels: one }));
  alerts.source.take(message('resolved', { fingerprint: '', labels: other }));
  t.strictSame(alerts.board.loads(), []);
});

t.test('alerts about something else are ignored, and that is said once', async (t) => {
  using alerts = fixture();
  for (const labels of [{ alertname: 'DiskFull' }, { link: 'a b' }, { link: '' }])
    alerts.source.take(message('firing', { labels }));
  t.strictSame(alerts.board.loads(), []);
  t.equal(alerts.logged.length, 1);
});

t.test('a malformed message is refused as a whole', async (t) => {
  using alerts = fixture();
  const good = JSON.parse(message('firing')) as { alerts: object[] };
  const malformed: readonly unknown[] = [
    null,
    [],
    {},
    { ...good, version: '3' },
    { ...good, alerts: {} },
    { ...good, alerts: [...good.alerts, null] },
    { ...good, alerts: [...good.alerts, { status: 'pending', labels: {} }] },
    { ...good, alerts: [...good.alerts, { status: 'firing' }] },
    { ...good, alerts: [...good.alerts, { status: 'firing', labels: { link: 3 } }] },
    { ...good, alerts: Array.from({ length: 5000 }, () => good.alerts[0]) },
  ];
  for (const body of ['', '{', ...malformed.map((value) => JSON.stringify(value))])
    t.throws(() => alerts.source.take(body), { code: 'INVALID_ARGUMENT' }, body.slice(0, 60));
  t.strictSame(alerts.board.loads(), []);
});

const LOOPBACK = { host: '127.0.0.1', port: 0 };

t.test('the port takes posts with the token, and nothing else', async (t) => {
  const taken: string[] = [];
  const listener = await listenForAlerts({
    listen: LOOPBACK,
    token: 'geheim',
    take: (body) => {
      JSON.parse(body);
      taken.push(body);
    },
    log: () => undefined,
  });
  t.teardown(() => listener.close());
  const post = (path: string, init: RequestInit = {}): Promise<number> =>
    fetch(`http://${listener.address}${path}`, {
      method: 'POST',
      body: '{}',
      ...init,
      headers: { authorization: 'Bearer geheim', ...init.headers },
    }).then(({ status }) => status);
  t.equal(await post('/alerts'), 200);
  t.equal(await post('/alerts', { headers: { authorization: 'Bearer falsch' } }), 401);
  t.equal(await post('/alerts', { headers: { authorization: '' } }), 401);
  t.equal(await post('/elsewhere'), 404);
  t.equal(await post('/alerts', { method: 'PUT' }), 405);
  t.equal(await post('/alerts', { body: '{' }), 500, 'a defect is not the sender’s');
  t.strictSame(taken, ['{}']);
});

t.test('a malformed message is answered with 400, one that is too long with 413', async (t) => {
  using alerts = fixture();
  const lines: string[] = [];
  const listener = await listenForAlerts({
    listen: LOOPBACK,
    take: (body) => alerts.source.take(body),
    log: (_level, line) => lines.push(line),
  });
  t.teardown(() => listener.close());
  const post = (body: string): Promise<number> =>
    fetch(`http://${listener.address}/alerts`, { method: 'POST', body }).then(({ status }) => status);
  t.equal(await post('{}'), 400);
  t.match(lines, [/an alert message is refused: not a message of Alertmanager: version/]);
  t.equal(await post(message('firing').padEnd(BODY_BYTES_MAX, ' ')), 200);
  t.equal(await post(message('firing').padEnd(BODY_BYTES_MAX + 1, ' ')), 413);
  t.match(alerts.board.loads(), [{ link: 'tor3', hot: true }]);
});

t.test('G7: without certificates only loopback is served', async (t) => {
  const options = { take: () => undefined, log: () => undefined };
  await t.rejects(listenForAlerts({ ...options, listen: { host: '0.0.0.0', port: 0 } }), {
    code: 'FAILED_PRECONDITION',
    message: /slow migrations down/,
  });
  const listener = await listenForAlerts({
    ...options,
    listen: { host: '0.0.0.0', port: 0 },
    insecure: true,
  });
  const { port } = parseHostPort(listener.address);
  await t.rejects(listenForAlerts({ ...options, listen: { host: '127.0.0.1', port }, insecure: true }), {
    code: 'FAILED_PRECONDITION',
    message: /cannot serve the alert port on 127\.0\.0\.1:\d+: .*EADDRINUSE/,
  });
  await listener.close();
});

t.test('G7: with certificates a client has to show one of the cluster', async (t) => {
  const folder = scratchDir(t);
  const ours = readTlsIdentity(makeTlsFiles(folder, 'ours'))!;
  const strangers = readTlsIdentity(makeTlsFiles(folder, 'strangers'))!;
  const taken: string[] = [];
  const listener = await listenForAlerts({
    listen: { host: '0.0.0.0', port: 0 },
    tls: ours,
    take: (body) => taken.push(body),
    log: () => undefined,
  });
  t.teardown(() => listener.close());
  const { port } = parseHostPort(listener.address);
  const post = (identity: { ca: string; cert?: string; key?: string }): Promise<number | undefined> =>
    new Promise((resolve, reject) => {
      const call = request(
        { host: '127.0.0.1', port, path: '/alerts', method: 'POST', agent: false, ...identity },
        (response) => {
          response.resume();
          resolve(response.statusCode);
        },
      );
      call.on('error', reject).end('{}');
    });
  await t.rejects(post({ ca: ours.ca }));
  await t.rejects(post({ ...strangers, ca: ours.ca }));
  t.strictSame(taken, []);
  t.equal(await post({ ...ours }), 200);
  t.strictSame(taken, ['{}']);
});
