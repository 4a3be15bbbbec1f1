import t from 'tap';
import { connect } from '../../src/control/control-client.js';
import { serveControl } from '../../src/control/control-server.js';
import { parseHostPort } from '../../src/leaves/host-port.js';
import type { LinkLoad } from '../../src/leaves/hot-spots.js';
import { bytesPerSecond, millis } from '../../src/leaves/units.js';
import { daemonStatusExample } from '../support/control-fixture.js';
import { FakeMigrationControl } from '../support/fake-migration-control.js';
import { runCli } from '../support/run.js';

const at = millis(1_800_000_000_000);
const LINKS: readonly LinkLoad[] = [
  { link: 'tor3', at, saturated: true, hot: true, source: 'alert TorSaturated' },
  {
    link: 'host-a',
    at,
    rate: 1_200_000_000,
    capacity: bytesPerSecond(1_250_000_000),
    saturated: true,
    hot: false,
    source: 'interface eth0',
  },
  { link: 'host-b', at, rate: 0, saturated: false, hot: false, source: 'prometheus query nic' },
];

const server = await serveControl({
  service: new FakeMigrationControl(),
  status: () => ({ ...daemonStatusExample, links: LINKS }),
  listen: { host: '127.0.0.1', port: 0 },
  log: () => undefined,
});
t.teardown(() => server.close());

t.test('GetStatus carries links as they are', async (t) => {
  using client = connect({ server: parseHostPort(server.address) });
  t.strictSame((await client.status()).links, LINKS);
});

t.test('status shows links by name, with what is known of them', async (t) => {
  const { stdout, stderr } = await runCli(['status', '--server', server.address]);
  t.equal(stderr, '');
  const lines = stdout.split('\n').map((line) => line.trimEnd());
  const first = lines.findIndex((line) => line.startsWith('LINK'));
  t.strictSame(
    lines.slice(first, first + 5).map((line) => line.split(/ {2,}/)),
    [
      ['LINK', 'STATE', 'RATE', 'CAPACITY', 'USED', 'KNOWN FROM'],
      ['host-a', 'saturated', '1.2 GB/s', '1.3 GB/s', '96 %', 'interface eth0'],
      ['host-b', 'cool', '0 B/s', '-', '-', 'prometheus query nic'],
      ['tor3', 'hot', '-', '-', '-', 'alert TorSaturated'],
      [''],
    ],
  );
});
