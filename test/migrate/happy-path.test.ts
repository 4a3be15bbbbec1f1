/** A migration from end to end under each cutover policy: bytes, attributes, states, ownership. Attacks G1 to G3. */
import { chmodSync, chownSync, mkdirSync, statSync } from 'node:fs';
import t from 'tap';
import { KiB, MiB } from '../../src/leaves/units.js';
import { identical, rewriteBlock, writeRefusal } from '../support/cutover.js';
import { makeSparseImage } from '../support/files.js';
import { migrate, startPair } from '../support/pair.js';
import { StampWriter } from '../support/stamp-writer.js';

const SIZE = 64 * MiB;
const STAMPED = { offset: 0, length: 4 * MiB };
const STILL = 8 * MiB;

for (const cutover of ['explicit', 'on-first-write', 'when-in-sync'] as const)
  t.test(`cutover ${cutover} under a write load loses nothing`, async (t) => {
    const pair = await startPair(t);
    const { source, target } = pair;
    const image = 'folder/vm.raw';
    mkdirSync(source.daemon.below('folder'));
    makeSparseImage(source.daemon.below(image), SIZE, [{ offset: STILL, length: 24 * MiB + 12 * KiB }]);
    chownSync(source.daemon.below(image), 107, 108);
    chmodSync(source.daemon.below(image), 0o640);
    const writer = new StampWriter(STAMPED, 7);
    await writer.start(source.daemon.at(image), 2);

    const migration = await migrate(t, pair, [image], { cutover });
    if (cutover === 'explicit') {
      await migration.reaches('mirroring');
      t.equal(await writeRefusal(target.daemon.at(image)), 'EROFS', 'the target waits for the call');
      await source.client.cutover(migration.id);
    } else if (cutover === 'on-first-write') {
      await migration.reaches('mirroring');
      await rewriteBlock(source.daemon.below(image), target.daemon.at(image), STILL);
    }
    await migration.reaches('completed');
    await writer.ended();

    t.equal(writer.refusal?.code, 'EROFS', 'the writer was fenced, and only that');
    t.ok(writer.writes > 0, 'it had written');
    t.ok(await identical(source.daemon.below(image), target.daemon.below(image)), 'identical at the fence');
    t.same((await writer.check(target.daemon.at(image))).lost, [], 'every acknowledged write is there');
    const [there, here] = [target, source].map(({ daemon }) => statSync(daemon.at(image)));
    t.same(
      [there!.size, there!.mode, there!.uid, there!.gid],
      [here!.size, here!.mode, 107, 108],
      'attributes',
    );
    t.equal(await writeRefusal(source.daemon.at(image)), 'EROFS', 'the source refuses writes');
    t.equal(await writeRefusal(target.daemon.at(image)), '', 'the target takes them');
    t.same(migration.states.slice(-2), ['cutover', 'completed'], 'the last states');
    t.ok(await source.client.queryCompletion(migration.id), 'QueryCompletion says so');
    await source.daemon.stop();
    await target.daemon.stop();
  });
