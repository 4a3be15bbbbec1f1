/** What is reported of a migration that has just begun. */
import t from 'tap';
import type { MigrationSnapshot } from '../../src/leaves/migration.js';
import { MiB } from '../../src/leaves/units.js';
import { scratchDir } from '../support/scratch.js';
import { makeImage, TestHost } from './source-world.js';

t.test('everything is left to copy while its data is being looked for', async (t) => {
  const source = await TestHost.open(t, scratchDir(t, 'source'));
  const target = await TestHost.open(t, scratchDir(t, 'target'));
  makeImage(source, 'a.img', 4 * MiB);
  const reported: MigrationSnapshot[] = [];
  t.teardown(source.replica.watch((snapshot) => reported.push(snapshot)));
  const { id } = await source.start(['a.img'], target.replica.dataAddress);
  await source.until(id, ({ state }) => state === 'mirroring');
  // Nothing is marked yet when the state is entered.
  const first = reported.find(({ state }) => state === 'bulk-copy')!;
  t.equal(first.bytesLeft, first.bytesTotal);
  t.notOk('eta' in first, 'and nobody knows how long that takes');
});
