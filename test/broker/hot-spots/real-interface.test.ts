import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { migrate } from '../../support/pair.js';
import { scratchDir } from '../../support/scratch.js';
import { SocketLoad } from '../../support/socket-load.js';
import { TestBed } from '../../support/test-bed.js';
import { within } from '../../support/test-daemon.js';

/** Bytes per second of the cable. */
const RATE = 10e6;
const IMAGE_BYTES = 60e6;
const PATIENCE_MS = 20_000;

/** A line of the daemon's log about its link. */
interface LinkLine {
  readonly link?: string;
  readonly hot?: boolean;
  readonly saturated?: boolean;
}

const lineOf = (line: string): LinkLine => JSON.parse(line) as LinkLine;

t.test('a daemon tells traffic of others on its cable from that of its own migration', async (t) => {
  const bed = await TestBed.create(t, { a: { rate: RATE }, b: { rate: RATE } });
  const [a, b] = [bed.host('a'), bed.host('b')];
  const config = join(scratchDir(t, 'hot-spots'), 'hot-spots.json');
  writeFileSync(
    config,
    JSON.stringify({
      interfaces: { automatic: false, links: { eth0: { link: 'host-a', capacity: '10MB/s' } } },
    }),
  );
  const source = await a.startDaemon(t, { extraArgs: ['--hot-spots', config] });
  const target = await b.startDaemon(t);
  const { daemon } = source;
  const says = async (wanted: { hot: boolean; saturated?: boolean }): Promise<LinkLine> => {
    const logged = daemon.logged((line) => {
      const { link, hot, saturated } = lineOf(line);
      return link === 'host-a' && hot === wanted.hot && (wanted.saturated ?? saturated) === saturated;
    });
    return lineOf(
      await within(
        logged,
        PATIENCE_MS,
        () => `no link ${JSON.stringify(wanted)}\n${daemon.log.slice(-5).join('\n')}`,
      ),
    );
  };

  const hot = says({ hot: true });
  const load = await SocketLoad.start(t, a, b);
  await hot;
  const cool = says({ hot: false, saturated: false });
  await load.stop();
  await cool;

  writeFileSync(daemon.below('disk'), randomBytes(IMAGE_BYTES));
  const full = says({ hot: false, saturated: true });
  const migration = await migrate(t, { source, target }, ['disk'], { broker: 'off' });
  await full;
  const heatedLines = (): number => daemon.log.filter((line) => lineOf(line).hot === true).length;
  await migration.until(({ bytesLeft }) => bytesLeft < IMAGE_BYTES / 2);
  t.equal(heatedLines(), 1, 'saturated by the migration alone, it is not hot');
  const hotAgain = says({ hot: true });
  await SocketLoad.start(t, a, b);
  await hotAgain;
  t.equal(heatedLines(), 2);
  await source.client.cancel(migration.id);
});
