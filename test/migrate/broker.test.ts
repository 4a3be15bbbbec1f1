/** Brokers of real daemons: their terms, their limits beside the operator's, and what they ask of each other. */
import { setTimeout as delay } from 'node:timers/promises';
import t from 'tap';
import type { ControlClient } from '../../src/control/control-client.js';
import { bytesPerSecond, millis, UNLIMITED } from '../../src/leaves/units.js';
import { makeSparseImage } from '../support/files.js';
import { migrate, startPair } from '../support/pair.js';
import { waitFor } from '../support/wait-for.js';

const IMAGE = 'vm.raw';
const PERIOD = millis(500);
const MB = 1e6;
const DAEMON_LIMIT = 8 * MB;

/** Bytes per second at most, by the clock of this process: what waits for a busy machine only makes it lower. */
const rateAtMost = async (
  client: ControlClient,
  id: string,
  during: () => Promise<unknown>,
): Promise<number> => {
  const at = performance.now();
  const before = await client.get(id);
  await during();
  const { bytesSent } = await client.get(id);
  return ((bytesSent - before.bytesSent) * 1000) / (performance.now() - at);
};

t.test('asked for again, a migration without a broker gets none', async (t) => {
  const { source, target } = await startPair(t);
  makeSparseImage(source.daemon.below(IMAGE), 32 * MB, [{ offset: 0, length: 32 * MB }]);
  const request = {
    images: [IMAGE],
    target: target.daemon.dataAddress,
    cutover: 'explicit' as const,
    priority: 0,
    netLimit: bytesPerSecond(MB),
    diskLimit: UNLIMITED,
    requestId: 'again',
  };
  const { id } = await source.client.start({ ...request, broker: 'off' });
  t.equal((await source.client.start(request)).id, id);
  await t.rejects(source.client.broker(id), { code: 'NOT_FOUND' });
  await source.client.cancel(id);
});

t.test('a request over the network lowers the rate within two periods, and it comes back', async (t) => {
  const pair = await startPair(t, {
    source: { extraArgs: [`--net-limit=${DAEMON_LIMIT / MB}MB/s`, '--log-level=debug'] },
  });
  makeSparseImage(pair.source.daemon.below(IMAGE), 128 * MB, [{ offset: 0, length: 128 * MB }]);
  const migration = await migrate(t, pair, [IMAGE], {
    netLimit: 40 * MB,
    deadlineAfter: 3_600_000,
    broker: { period: PERIOD, quietPeriods: 1, vmmTime: millis(0) },
  });
  const { client } = pair.source;
  await migration.until((s) => s.bytesSent > 6 * MB);
  const shown = await client.broker(migration.id);
  t.match(shown, { zone: 'calm', terms: { danger: 3, warning: 4 }, netLimit: UNLIMITED, period: PERIOD });
  t.ok(shown.ratio! > 10, `laxity ${shown.ratio}`);

  const request = { migrationId: migration.id, from: 'another', link: 'tor3', ratio: 1.2, validFor: PERIOD };
  t.equal(await client.backOff(request), 'obeyed');
  const { decisions } = await client.broker(migration.id);
  const reduced = await migration.until((s) => s.brokerNetLimit !== undefined);
  // Each decision is a line; a look at the broker comes late on a busy machine.
  const lines = (): string[] =>
    pair.source.daemon.log.filter((line) => line.includes('"broker: ') && line.includes(migration.id));
  const reduction = (): number => lines().findIndex((line) => line.includes('"broker: reduced')) + 1;
  await waitFor(() => reduction() > 0, 'the reduction is in the log');
  t.ok(
    reduction() <= decisions + 1,
    `decision ${reduction()} reduces, ${decisions} were made at the request`,
  );
  t.ok(reduced.netLimit < DAEMON_LIMIT, `limit ${reduced.netLimit}`);
  t.equal(reduced.operatorNetLimit, 40 * MB, 'the limit of the operator is kept');
  // Who wants bandwidth asks again and again; each time it is given more.
  const rate = await rateAtMost(client, migration.id, async () => {
    for (let asked = 0; asked < 4; asked++) {
      await client.backOff(request);
      await delay(PERIOD);
    }
  });
  t.ok(rate < reduced.netLimit * 1.15, `${rate} bytes per second, limit ${reduced.netLimit}`);
  const released = await migration.until((s) => s.brokerNetLimit === undefined);
  t.equal(released.netLimit, 40 * MB);
  // On a busy machine nothing is said of a rate that no limit bounds.
  const said = lines().filter((line) => line.includes('"level":30'));
  t.ok(said.length >= 2 && said.length <= 16, `${said.length} decisions changed something`);
  t.ok(
    said.some((line) => line.includes('another')),
    'the log says for whom',
  );

  await client.cancel(migration.id);
  await migration.until((s) => s.state === 'cancelled').catch(() => {});
  t.equal(await client.backOff(request), 'ended');
  t.match(await client.broker(migration.id), { ended: true });
});

t.test(
  'a broker in danger asks the broker of a sharer at another daemon; each gets on without it',
  async (t) => {
    const pair = await startPair(t);
    const { source, target } = pair;
    for (const { daemon } of [source, target])
      makeSparseImage(daemon.below(`${daemon === source.daemon ? 'urgent' : 'calm'}.raw`), 128 * MB, [
        { offset: 0, length: 128 * MB },
      ]);
    const broker = { period: PERIOD, quietPeriods: 1, vmmTime: millis(0) };
    const back = { source: target, target: source };
    const calm = await migrate(t, back, ['calm.raw'], { netLimit: 2 * MB, broker });
    // 128 MB at 2 MB/s are 64 s: a ratio of 2 where danger is below 3, and above it after half a minute.
    const urgent = await migrate(t, pair, ['urgent.raw'], {
      netLimit: 2 * MB,
      deadlineAfter: 128_000,
      broker,
    });
    await source.client.setBrokerPath(urgent.id, [
      { link: 'tor3', sharers: [{ server: target.daemon.controlAddress, migrationId: calm.id }] },
    ]);
    await calm.until((s) => s.brokerNetLimit !== undefined);
    t.match(await target.client.broker(calm.id), { askedBy: [urgent.id], zone: 'calm' });
    t.match(await source.client.broker(urgent.id), { zone: 'danger', netLimit: UNLIMITED });
    const refused = { migrationId: urgent.id, from: calm.id, link: 'tor3', ratio: 9, validFor: PERIOD };
    t.equal(await source.client.backOff(refused), 'in-danger');
    await source.client.cancel(urgent.id);
    const free = await calm.until((s) => s.brokerNetLimit === undefined);
    t.match(free, { state: 'bulk-copy', netLimit: 2 * MB });
  },
);
