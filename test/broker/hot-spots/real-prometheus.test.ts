/** Debian's Prometheus, node exporter and Alertmanager, as an operator would set them up (docs/HOTSPOTS.md). */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { NetworkProgram } from '../../support/network-program.js';
import { scratchDir } from '../../support/scratch.js';
import { SocketLoad } from '../../support/socket-load.js';
import { TestBed } from '../../support/test-bed.js';
import { waitFor } from '../../support/wait-for.js';

/** Bytes per second of the cable. */
const RATE = 10e6;
const UTILISATION = `rate(node_network_transmit_bytes_total{device="eth0"}[5s]) / ${RATE}`;

const PROMETHEUS = `
global: { scrape_interval: 1s, evaluation_interval: 1s }
scrape_configs:
  - { job_name: node, static_configs: [{ targets: ['127.0.0.1:9100'] }] }
rule_files: [rules.yml]
alerting:
  alertmanagers:
    - { static_configs: [{ targets: ['127.0.0.1:9093'] }] }
`;

const RULES = `
groups:
  - name: links
    rules:
      - alert: LinkSaturated
        expr: ${UTILISATION} > 0.9
        labels: { link: tor1 }
`;

const ALERTMANAGER = `
route: { receiver: migratefs, group_by: [alertname, link], group_wait: 0s, group_interval: 1s, repeat_interval: 1m }
receivers:
  - name: migratefs
    webhook_configs:
      - url: http://127.0.0.1:7072/alerts
        send_resolved: true
        http_config: { authorization: { type: Bearer, credentials: geheim } }
`;

/** What the daemon is told. */
const hotSpots = (tokenFile: string): object => ({
  thresholds: { rise: '1s', fall: '1s' },
  interfaces: false,
  prometheus: [
    {
      server: 'http://127.0.0.1:9090',
      interval: '1s',
      queries: [{ name: 'nic', query: UTILISATION, label: 'device', names: { eth0: 'host-a' } }],
    },
  ],
  alerts: { listen: '127.0.0.1:7072', 'token-file': tokenFile },
});

/** Three servers start, a window of 5 s fills, and other tests run beside. */
const PATIENCE_MS = 60_000;

interface LinkLine {
  readonly link?: string;
  readonly hot?: boolean;
}

t.test('a cable that Prometheus sees filled is hot by query and by alert, and cools', async (t) => {
  const folder = scratchDir(t, 'prometheus');
  const file = (name: string, text: string): string => {
    writeFileSync(join(folder, name), text);
    return join(folder, name);
  };
  const bed = await TestBed.create(t, { a: { rate: RATE }, b: {} });
  const [a, b] = [bed.host('a'), bed.host('b')];
  const start = (command: string, ...args: string[]): NetworkProgram =>
    new NetworkProgram(t, a.namespace, command, args);
  const exporter = start(
    'prometheus-node-exporter',
    '--web.listen-address=127.0.0.1:9100',
    '--collector.disable-defaults',
    '--collector.netdev',
  );
  file('rules.yml', RULES);
  const prometheus = start(
    'prometheus',
    `--config.file=${file('prometheus.yml', PROMETHEUS)}`,
    `--storage.tsdb.path=${join(folder, 'data')}`,
    '--web.listen-address=127.0.0.1:9090',
  );
  const alertmanager = start(
    'prometheus-alertmanager',
    `--config.file=${file('alertmanager.yml', ALERTMANAGER)}`,
    `--storage.path=${join(folder, 'alerts')}`,
    '--web.listen-address=127.0.0.1:9093',
    '--cluster.listen-address=',
  );
  const config = file('daemon.json', JSON.stringify({ 'hot-spots': hotSpots(file('token', 'geheim\n')) }));
  const { daemon } = await a.startDaemon(t, { extraArgs: ['--config', config] });
  const said = (link: string): boolean[] =>
    daemon.log
      .map((line) => JSON.parse(line) as LinkLine)
      .filter((line) => line.link === link)
      .map(({ hot }) => hot === true);
  const becomes = (link: string, hot: boolean): Promise<void> =>
    waitFor(
      () => {
        for (const program of [exporter, prometheus, alertmanager]) void program.output;
        return said(link).at(-1) === hot;
      },
      `${link} is ${hot ? 'hot' : 'cool'}`,
      PATIENCE_MS,
    );

  const load = await SocketLoad.start(t, a, b);
  await Promise.all([becomes('host-a', true), becomes('tor1', true)]);
  await load.stop();
  await Promise.all([becomes('host-a', false), becomes('tor1', false)]);
  t.strictSame(said('host-a'), [true, false], 'by query');
  t.strictSame(said('tor1'), [true, false], 'by alert');
  t.notMatch(daemon.log.join('\n'), /refused|ignored/);
});
