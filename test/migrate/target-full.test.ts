/** The target's disk runs full in the middle: the migration fails, the guest notices nothing, no debris (G4). */
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { MiB } from '../../src/leaves/units.js';
import { filesOf, recordOf } from '../support/debris.js';
import { makeSparseImage } from '../support/files.js';
import { enterLane, IMAGE, inLane, inSync } from '../support/in-lane.js';
import { type Followed, migrate, type Pair, startPair } from '../support/pair.js';
import { scratchDir } from '../support/scratch.js';
import { fillDisk, smallDisk } from '../support/small-disk.js';
import { StampWriter } from '../support/stamp-writer.js';
import { waitFor } from '../support/wait-for.js';

/** It failed for want of room there, the guest noticed nothing, and nothing is left. */
const endsCleanly = async (
  t: Test,
  { source, target }: Pair,
  migration: Followed,
  writer: StampWriter,
): Promise<void> => {
  const { error } = await migration.reaches('failed');
  t.equal(error?.code, 'RESOURCE_EXHAUSTED', String(error?.message));
  const then = writer.writes;
  await waitFor(() => writer.writes > then, 'the guest goes on writing');
  await writer.stop();
  t.equal(writer.refusal, null, 'the guest saw no error');
  t.same((await writer.check(source.daemon.below(IMAGE))).lost, []);
  t.equal(await recordOf(source.daemon.below(IMAGE)), '');
  await waitFor(() => filesOf(target.daemon).join() === 'ballast', 'the replica is gone');
  await source.daemon.stop();
  await target.daemon.stop();
};

t.test('the target runs full during the copy', async (t) => {
  const folder = join(scratchDir(t, 'small'), 'images');
  await smallDisk(t, folder, 64 * MiB);
  const pair = await startPair(t, { target: { imageDir: folder } });
  const { source } = pair;
  makeSparseImage(source.daemon.below(IMAGE), 64 * MiB, [{ offset: 8 * MiB, length: 32 * MiB }]);
  const writer = new StampWriter({ offset: 0, length: 2 * MiB }, 5);
  await writer.start(source.daemon.at(IMAGE), 2);
  const migration = await migrate(t, pair, [IMAGE], { netLimit: 16 * MiB });
  await migration.until((s) => s.bytesSent > 2 * MiB);
  // Or the copy is over before the disk is full.
  await source.client.pause(migration.id);
  await fillDisk(folder, MiB);
  await source.client.resume(migration.id);
  await endsCleanly(t, pair, migration, writer);
});

t.test('the target runs full in sync, where guests write over the stream', async (t) => {
  const folder = join(scratchDir(t, 'small'), 'images');
  await smallDisk(t, folder, 64 * MiB);
  const { pair, proxy, migration } = await inSync(t, { imageDir: folder });
  await enterLane(pair, proxy);
  // Where the replica has holes.
  const writer = new StampWriter({ offset: 4 * MiB, length: 8 * MiB }, 5);
  await writer.start(pair.source.daemon.at(IMAGE), 2);
  await inLane(proxy);
  await fillDisk(folder, 0);
  await endsCleanly(t, pair, migration, writer);
});
