/** The peer or the network goes away: the guest notices nothing, and the migration completes later (G1, G4). */
import { existsSync, rmSync } from 'node:fs';
import t, { type Test } from 'tap';
import { MiB, UNLIMITED } from '../../src/leaves/units.js';
import { CutProxy } from '../support/cut-proxy.js';
import { identical, rewriteBlock } from '../support/cutover.js';
import { makeSparseImage } from '../support/files.js';
import { type Followed, type Host, migrate, type Pair, restartHost, startPair } from '../support/pair.js';
import type { Teardown } from '../support/scratch.js';
import { StampWriter } from '../support/stamp-writer.js';
import { waitFor } from '../support/wait-for.js';

const IMAGE = 'vm.raw';
const STILL = 8 * MiB;
/** Milliseconds of a silent peer before it counts as lost; short for the test. */
const PEER_TIMEOUT = ['--peer-timeout', '2s'];

const prepared = async (t: Teardown): Promise<{ pair: Pair; writer: StampWriter }> => {
  const pair = await startPair(t, {
    source: { extraArgs: PEER_TIMEOUT },
    target: { extraArgs: PEER_TIMEOUT },
  });
  makeSparseImage(pair.source.daemon.below(IMAGE), 64 * MiB, [{ offset: STILL, length: 24 * MiB }]);
  const writer = new StampWriter({ offset: 0, length: 4 * MiB }, 11);
  await writer.start(pair.source.daemon.at(IMAGE), 2);
  return { pair, writer };
};

const goesOn = async (writer: StampWriter): Promise<void> => {
  const then = writer.writes;
  await waitFor(() => writer.writes > then + 50 || writer.refusal !== null, 'the guest goes on writing');
};

const completes = async (
  t: Test,
  source: Host,
  target: Host,
  migration: Followed,
  writer: StampWriter,
): Promise<void> => {
  await migration.reaches('mirroring');
  t.equal(writer.refusal, null, 'the guest saw no error all the time');
  await rewriteBlock(source.daemon.below(IMAGE), target.daemon.at(IMAGE), STILL);
  await migration.reaches('completed');
  await writer.ended();
  t.equal(writer.refusal?.code, 'EROFS');
  t.ok(await identical(source.daemon.below(IMAGE), target.daemon.below(IMAGE)), 'identical at the fence');
  t.same((await writer.check(target.daemon.at(IMAGE))).lost, [], 'every acknowledged write is there');
};

for (const moment of ['bulk-copy', 'mirroring'] as const)
  t.test(`the target is killed in ${moment} and comes back`, async (t) => {
    const { pair, writer } = await prepared(t);
    const migration = await migrate(t, pair, [IMAGE], moment === 'bulk-copy' ? { netLimit: 8 * MiB } : {});
    if (moment === 'bulk-copy') await migration.until((s) => s.bytesSent > 2 * MiB);
    else await migration.reaches('mirroring');
    await pair.target.daemon.kill();
    await migration.reaches('interrupted');
    t.ok(migration.last.error, 'it says why');
    await goesOn(writer);
    const target = await restartHost(t, pair.target, { extraArgs: PEER_TIMEOUT });
    if (moment === 'bulk-copy') {
      await migration.until((s) => s.state !== 'interrupted');
      await pair.source.client.setNetworkLimit(migration.id, UNLIMITED);
    }
    await completes(t, pair.source, target, migration, writer);
  });

for (const [failure, moment] of [
  ['cut', 'bulk-copy'],
  ['cut', 'mirroring'],
  ['silence', 'mirroring'],
] as const)
  t.test(`network ${failure} in ${moment}`, async (t) => {
    const { pair, writer } = await prepared(t);
    const proxy = await CutProxy.start(t, pair.target.daemon.dataAddress);
    const migration = await migrate(t, pair, [IMAGE], {
      to: proxy.address,
      ...(moment === 'bulk-copy' ? { netLimit: 8 * MiB } : {}),
    });
    if (moment === 'bulk-copy') await migration.until((s) => s.bytesSent > 2 * MiB);
    else await migration.reaches('mirroring');
    proxy[failure]();
    await migration.reaches('interrupted');
    await goesOn(writer);
    const { bytesSent } = migration.last;
    proxy.heal();
    await migration.until((s) => s.state !== 'interrupted');
    if (moment === 'bulk-copy') await pair.source.client.setNetworkLimit(migration.id, UNLIMITED);
    const inSync = await migration.reaches('mirroring');
    if (moment === 'mirroring')
      t.ok(inSync.bytesSent - bytesSent < 24 * MiB, 'only what was dirty or unacknowledged was sent again');
    await completes(t, pair.source, pair.target, migration, writer);
  });

t.test('a migration whose target never comes back can be cancelled', async (t) => {
  const { pair, writer } = await prepared(t);
  const migration = await migrate(t, pair, [IMAGE]);
  await migration.reaches('mirroring');
  await pair.target.daemon.kill();
  await migration.reaches('interrupted');
  t.equal((await pair.source.client.cancel(migration.id)).state, 'cancelled');
  await goesOn(writer);
  await writer.stop();
  t.equal(writer.refusal, null);
  t.same((await writer.check(pair.source.daemon.below(IMAGE))).lost, []);
  t.doesNotThrow(() => rmSync(pair.source.daemon.at(IMAGE)), 'the image is free');
});

t.test('the killed source leaves the image usable, and its replica can be discarded', async (t) => {
  const { pair, writer } = await prepared(t);
  const migration = await migrate(t, pair, [IMAGE]);
  await migration.reaches('mirroring');
  await pair.source.daemon.kill();
  await writer.ended();
  t.same(
    (await writer.check(pair.source.daemon.below(IMAGE))).lost,
    [],
    'what was acknowledged is on the source',
  );
  const source = await restartHost(t, pair.source);
  await pair.target.client.cancel(migration.id);
  await waitFor(() => !existsSync(pair.target.daemon.below(IMAGE)), 'the replica is gone');
  t.doesNotThrow(() => rmSync(source.daemon.at(IMAGE)), 'the source is free');
});
