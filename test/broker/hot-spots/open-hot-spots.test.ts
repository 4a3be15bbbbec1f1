import { once } from 'node:events';
import { mkdirSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import t from 'tap';
import { hotSpotsConfigOf } from '../../../src/broker/hot-spots/config.js';
import type { NetworkInterfaces } from '../../../src/broker/hot-spots/network-interfaces.js';
import { openHotSpots } from '../../../src/broker/hot-spots/open-hot-spots.js';
import { parseHostPort } from '../../../src/leaves/host-port.js';
import { ManualClock } from '../../support/manual-clock.js';
import { scratchDir } from '../../support/scratch.js';

const log = (): void => undefined;

/** Each look finds 50 MB more received. */
const busy = (): NetworkInterfaces => {
  let received = 0;
  return {
    counters: () => {
      received += 50e6;
      return new Map([['eth0', { received, sent: 0 }]]);
    },
    speed: () => undefined,
    below: () => [],
    towards: async () => 'eth0',
  };
};

const CONFIG = {
  interfaces: { links: { eth0: { link: 'host-a', capacity: '100MB/s' } } },
  alerts: { listen: '127.0.0.1:0' },
};

const alert = (address: string): Promise<Response> =>
  fetch(`http://${address}/alerts`, {
    method: 'POST',
    body: JSON.stringify({
      version: '4',
      alerts: [{ status: 'firing', labels: { alertname: 'A', link: 'tor3' }, fingerprint: 'a' }],
    }),
  });

t.test('an alert that was taken at the port is known when it is opened again with its file', async (t) => {
  const folder = scratchDir(t, 'alerts');
  mkdirSync(folder, { recursive: true });
  const clock = new ManualClock(1000);
  const open = () =>
    openHotSpots(hotSpotsConfigOf({ alerts: CONFIG.alerts }, false), {
      clock,
      log,
      alertFile: join(folder, 'alerts.json'),
    });
  {
    await using spots = await open();
    t.equal((await alert(spots.alertAddress!)).status, 200);
  }
  await using spots = await open();
  t.match(spots.loads(), [{ link: 'tor3', hot: true, source: 'alert A' }]);
});

t.test('all sources behind one port, closed together', async (t) => {
  const clock = new ManualClock(1000);
  const spots = await openHotSpots(hotSpotsConfigOf(CONFIG, true), { clock, log, interfaces: busy() });
  const heard: string[] = [];
  spots.watch(({ link }) => heard.push(link));
  t.equal((await alert(spots.alertAddress!)).status, 200);
  spots.linkTowards('host-b');
  await clock.advance(3000);
  t.equal(spots.linkTowards('host-b'), 'host-a');
  const loads = [...spots.loads()].sort((a, b) => (a.link < b.link ? -1 : 1));
  t.match(loads, [
    { link: 'host-a', rate: 100e6, hot: true, source: 'interface eth0' },
    { link: 'tor3', hot: true, source: 'alert A' },
  ]);
  t.strictSame(heard.sort(), ['host-a', 'tor3', ...heard.slice(2)]);
  await Promise.all([spots.close(), spots.close()]);
  t.equal(clock.pending, 0, 'no timer is left');
  t.strictSame(spots.loads(), []);
  const { host, port } = parseHostPort(spots.alertAddress!);
  const [error] = (await once(connect(port, host), 'error')) as [NodeJS.ErrnoException];
  t.equal(error.code, 'ECONNREFUSED', 'nor the port');
});

t.test('aborting closes them, and one that has aborted opens nothing', async (t) => {
  const clock = new ManualClock(1000);
  const ending = new AbortController();
  const options = { clock, log, interfaces: busy(), signal: ending.signal };
  await openHotSpots(hotSpotsConfigOf({}, true), options);
  t.not(clock.pending, 0);
  ending.abort(new Error('enough'));
  await clock.advance(0);
  t.equal(clock.pending, 0);
  await t.rejects(openHotSpots(hotSpotsConfigOf(CONFIG, true), options), { message: 'enough' });
  t.equal(clock.pending, 0);
});

t.test('what cannot be opened leaves nothing open', async (t) => {
  const clock = new ManualClock(1000);
  const options = { clock, log, interfaces: busy() };
  for (const [bad, error] of [
    [{ alerts: { listen: '192.0.2.77:1' } }, { code: 'FAILED_PRECONDITION' }],
    [{ alerts: { listen: '127.0.0.1:0', 'token-file': '/nowhere' } }, { code: 'INVALID_ARGUMENT' }],
    [
      { prometheus: [{ server: 'http://a:1', 'ca-file': '/nowhere', queries: [{ query: 'up' }] }] },
      { code: 'INVALID_ARGUMENT', message: /cannot read the authorities \/nowhere/ },
    ],
  ] as const) {
    await t.rejects(openHotSpots(hotSpotsConfigOf(bad, true), options), error);
    t.equal(clock.pending, 0);
  }
});

t.test('where no interface is watched no link leads anywhere', async (t) => {
  await using spots = await openHotSpots(hotSpotsConfigOf({}, false), { clock: new ManualClock(), log });
  t.equal(spots.linkTowards('host-b'), undefined);
  t.notOk('alertAddress' in spots);
});
