/** One side accepts writes, never both (G3); the fence outlives the daemon. */
import { closeSync, openSync, renameSync, unlinkSync, writeFileSync, writeSync } from 'node:fs';
import t from 'tap';
import { MiB, UNLIMITED } from '../../src/leaves/units.js';
import { rewriteBlock, writeRefusal } from '../support/cutover.js';
import { makeSparseImage } from '../support/files.js';
import { migrate, restartHost, startPair } from '../support/pair.js';

const IMAGE = 'vm.raw';

t.test('after the cutover the source refuses writes, also when it is started anew', async (t) => {
  const pair = await startPair(t);
  const { source, target } = pair;
  makeSparseImage(source.daemon.below(IMAGE), 8 * MiB, [{ offset: 0, length: MiB }]);
  const open = openSync(source.daemon.at(IMAGE), 'r+');
  const migration = await migrate(t, pair, [IMAGE], { cutover: 'when-in-sync' });
  await migration.reaches('completed');
  t.throws(() => writeSync(open, 'x'), { code: 'EROFS' }, 'a descriptor from before is refused');
  closeSync(open);
  t.equal(await writeRefusal(source.daemon.at(IMAGE)), 'EROFS');
  await source.daemon.stop();
  await target.daemon.stop();
  const again = await restartHost(t, source);
  t.equal(await writeRefusal(again.daemon.at(IMAGE)), 'EROFS', 'fenced after the restart');
  await t.rejects(
    migrate(t, { source: again, target }, [IMAGE]),
    { code: 'FAILED_PRECONDITION' },
    'what it does not own it cannot send',
  );
  const owner = await restartHost(t, target);
  t.equal(await writeRefusal(owner.daemon.at(IMAGE)), '', 'the target owns it after its restart');
});

t.test('the target refuses writes until it is in sync', async (t) => {
  const pair = await startPair(t);
  const { source, target } = pair;
  makeSparseImage(source.daemon.below(IMAGE), 32 * MiB, [{ offset: 0, length: 24 * MiB }]);
  const migration = await migrate(t, pair, [IMAGE], { netLimit: 4 * MiB });
  await migration.until((s) => s.bytesSent > MiB);
  // A hypervisor opens the image for writing long before it writes.
  const early = openSync(target.daemon.at(IMAGE), 'r+');
  t.throws(() => writeSync(early, 'x'), { code: 'EROFS' });
  t.equal(migration.last.state, 'bulk-copy', 'it goes on undisturbed');
  await source.client.setNetworkLimit(migration.id, UNLIMITED);
  await migration.reaches('mirroring');
  await rewriteBlock(source.daemon.below(IMAGE), target.daemon.at(IMAGE), 0);
  await migration.reaches('completed');
  t.doesNotThrow(() => writeSync(early, 'x'), 'the descriptor from before takes writes now');
  closeSync(early);
});

t.test('renaming and unlinking a migrating image: EBUSY on both sides', async (t) => {
  const pair = await startPair(t);
  const { source, target } = pair;
  makeSparseImage(source.daemon.below(IMAGE), 8 * MiB, [{ offset: 0, length: MiB }]);
  writeFileSync(source.daemon.at('other'), 'x');
  const migration = await migrate(t, pair, [IMAGE], { cutover: 'explicit' });
  await migration.reaches('mirroring');
  for (const { daemon } of [source, target]) {
    t.throws(() => unlinkSync(daemon.at(IMAGE)), { code: 'EBUSY' });
    t.throws(() => renameSync(daemon.at(IMAGE), daemon.at('elsewhere')), { code: 'EBUSY' });
  }
  t.throws(
    () => renameSync(source.daemon.at('other'), source.daemon.at(IMAGE)),
    { code: 'EBUSY' },
    'renaming over it',
  );
  await source.client.cancel(migration.id);
  t.doesNotThrow(() => renameSync(source.daemon.at(IMAGE), source.daemon.at('elsewhere')));
});
