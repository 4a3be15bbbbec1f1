/** The target's disk runs full in the middle: the migration fails, the guest notices nothing, no debris (G4). */
import { join } from 'node:path';
import t from 'tap';
import { MiB } from '../../src/leaves/units.js';
import { filesOf, recordOf } from '../support/debris.js';
import { makeSparseImage } from '../support/files.js';
import { migrate, startPair } from '../support/pair.js';
import { scratchDir } from '../support/scratch.js';
import { fillDisk, smallDisk } from '../support/small-disk.js';
import { StampWriter } from '../support/stamp-writer.js';
import { waitFor } from '../support/wait-for.js';

t.test('the target runs full during the copy', async (t) => {
  const folder = join(scratchDir(t, 'small'), 'images');
  await smallDisk(t, folder, 64 * MiB);
  const pair = await startPair(t, { target: { imageDir: folder } });
  const { source, target } = pair;
  makeSparseImage(source.daemon.below('vm.raw'), 64 * MiB, [{ offset: 8 * MiB, length: 32 * MiB }]);
  const writer = new StampWriter({ offset: 0, length: 2 * MiB }, 5);
  await writer.start(source.daemon.at('vm.raw'), 2);
  const migration = await migrate(t, pair, ['vm.raw'], { netLimit: 16 * MiB });
  await migration.until((s) => s.bytesSent > 2 * MiB);
  await fillDisk(folder, MiB);
  const { error } = await migration.reaches('failed');
  t.equal(error?.code, 'RESOURCE_EXHAUSTED', String(error?.message));
  const then = writer.writes;
  await waitFor(() => writer.writes > then, 'the guest goes on writing');
  await writer.stop();
  t.equal(writer.refusal, null, 'the guest saw no error');
  t.same((await writer.check(source.daemon.below('vm.raw'))).lost, []);
  t.equal(await recordOf(source.daemon.below('vm.raw')), '');
  await waitFor(() => filesOf(target.daemon).join() === 'ballast', 'the replica is gone');
  await source.daemon.stop();
  await target.daemon.stop();
});
