import t from 'tap';
import { hotSpotsConfigOf } from '../../../src/broker/hot-spots/config.js';

t.test('a daemon watches its interfaces unless told otherwise, a scheduler does not', async (t) => {
  t.match(hotSpotsConfigOf({}, true), {
    thresholds: { upper: 0.9, lower: 0.8, rise: 1000, fall: 2000, others: 0.1 },
    interfaces: { interval: 500, window: 1000, automatic: true },
    prometheus: [],
  });
  for (const [value, watch] of [
    [{}, false],
    [{ interfaces: false }, true],
  ] as const)
    t.notOk('interfaces' in hotSpotsConfigOf(value, watch));
  t.ok('interfaces' in hotSpotsConfigOf({ interfaces: {} }, false));
});

t.test('everything can be said', async (t) => {
  const config = hotSpotsConfigOf(
    {
      thresholds: { upper: 0.7, lower: 0.5, rise: '5s', fall: '10s', others: 0.2 },
      interfaces: {
        interval: '1s',
        window: '4s',
        automatic: false,
        links: { eth0: { link: 'host-a', capacity: '10Gbit/s' }, eth1: {} },
      },
      prometheus: [
        {
          server: 'https://metrics.example:9090/prometheus',
          'token-file': '/etc/migratefs/token',
          'ca-file': '/etc/migratefs/metrics-ca.pem',
          interval: '2s',
          timeout: '1s',
          'stale-after': '30s',
          queries: [
            {
              name: 'uplinks',
              query: 'rate(ifHCOutOctets[30s])',
              label: 'switch',
              names: { 'sw-3.example': 'tor3' },
              value: 'rate',
              capacity: '1.25GB/s',
              capacities: { tor4: '40Gbit/s' },
            },
            { query: 'link:utilisation' },
          ],
        },
      ],
      alerts: {
        listen: '127.0.0.1:7072',
        label: 'switch',
        names: { 'sw-3.example': 'tor3' },
        'token-file': '/etc/migratefs/alerts-token',
        'expires-after': '2m',
      },
    },
    true,
  );
  t.strictSame(config, {
    thresholds: { upper: 0.7, lower: 0.5, rise: 5000, fall: 10_000, others: 0.2 },
    interfaces: {
      interval: 1000,
      window: 4000,
      automatic: false,
      links: new Map([
        ['eth0', { link: 'host-a', capacity: 1.25e9 }],
        ['eth1', { link: 'eth1' }],
      ]),
    },
    prometheus: [
      {
        server: new URL('https://metrics.example:9090/prometheus'),
        tokenFile: '/etc/migratefs/token',
        caFile: '/etc/migratefs/metrics-ca.pem',
        interval: 2000,
        timeout: 1000,
        staleAfter: 30_000,
        queries: [
          {
            name: 'uplinks',
            query: 'rate(ifHCOutOctets[30s])',
            label: 'switch',
            names: new Map([['sw-3.example', 'tor3']]),
            value: 'rate',
            capacities: new Map([['tor4', 5e9]]),
            capacity: 1.25e9,
          },
          {
            name: 'link:utilisation',
            query: 'link:utilisation',
            label: 'link',
            names: new Map(),
            value: 'utilisation',
            capacities: new Map(),
          },
        ],
      },
    ],
    alerts: {
      listen: { host: '127.0.0.1', port: 7072 },
      label: 'switch',
      names: new Map([['sw-3.example', 'tor3']]),
      tokenFile: '/etc/migratefs/alerts-token',
      expiresAfter: 120_000,
    },
  });
});

const SERVER = { server: 'http://127.0.0.1:9090', queries: [{ query: 'up' }] };
const queries = (query: object): object => ({
  prometheus: [{ ...SERVER, queries: [{ query: 'up', ...query }] }],
});

const REFUSED: readonly (readonly [unknown, RegExp])[] = [
  [null, /^hot-spots: give an object$/],
  [[], /give an object/],
  [{ interface: {} }, /^hot-spots: unknown key 'interface'$/],
  [
    { thresholds: { upper: 0.5, lower: 0.6 } },
    /^hot-spots\.thresholds: lower \(0\.6\) is above upper \(0\.5\)$/,
  ],
  [{ thresholds: { upper: '90%' } }, /^hot-spots\.thresholds\.upper: give a number from/],
  [{ thresholds: { rise: '-1s' } }, /thresholds\.rise: not a duration/],
  [{ interfaces: true }, /interfaces: give an object/],
  [{ interfaces: { links: { eth0: { capacity: '0' } } } }, /links\.eth0\.capacity: not a capacity/],
  [{ interfaces: { links: { eth0: { link: 'a b' } } } }, /links\.eth0\.link: not the name of a link/],
  [{ interfaces: { interval: '10ms' } }, /interfaces\.interval: give a duration from 100 to 60000 ms/],
  [{ interfaces: { interval: '2s', window: '1s' } }, /interfaces\.window: give a duration from 2000/],
  [{ prometheus: {} }, /^hot-spots\.prometheus: give a list/],
  [{ prometheus: [{ ...SERVER, server: '127.0.0.1:9090' }] }, /prometheus\[0\]\.server: give the address/],
  [
    { prometheus: [{ ...SERVER, server: 'file:///etc/passwd' }] },
    /prometheus\[0\]\.server: give the address/,
  ],
  [{ prometheus: [{ ...SERVER, queries: [] }] }, /queries: give 1 to 64 queries/],
  [queries({ value: 'percent' }), /queries\[0\]\.value: give 'utilisation' or 'rate'/],
  [queries({ value: 'rate' }), /'rate' needs 'capacity'/],
  [queries({ capacity: '1GB/s' }), /a utilisation has none/],
  [queries({ query: '' }), /queries\[0\]\.query: give a text/],
  [{ alerts: {} }, /^hot-spots\.alerts\.listen: give a text/],
  [{ alerts: { listen: '7072' } }, /alerts\.listen: not an address/],
  [{ alerts: { listen: '127.0.0.1:0', names: { a: 1 } } }, /alerts\.names\.a: give a text/],
];

t.test('what is wrong is named by its place', async (t) => {
  for (const [value, message] of REFUSED)
    t.throws(
      () => hotSpotsConfigOf(value, true),
      { code: 'INVALID_ARGUMENT', message },
      JSON.stringify(value),
    );
});
