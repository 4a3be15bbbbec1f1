/** The disks of one VM become in sync, and change hands, together. */
import t from 'tap';
import { MiB } from '../../src/leaves/units.js';
import { identical, rewriteBlock, writeRefusal } from '../support/cutover.js';
import { filesOf } from '../support/debris.js';
import { makeSparseImage } from '../support/files.js';
import { migrate, startPair } from '../support/pair.js';
import { StampWriter } from '../support/stamp-writer.js';

const IMAGES = ['a.raw', 'b.raw'] as const;

t.test('a write to one image on the target takes both over', async (t) => {
  const pair = await startPair(t);
  const { source, target } = pair;
  const writers = IMAGES.map((image, index) => {
    makeSparseImage(source.daemon.below(image), (16 + 48 * index) * MiB, [
      { offset: 8 * MiB, length: (4 + 40 * index) * MiB },
    ]);
    return new StampWriter({ offset: 0, length: 2 * MiB }, index + 1);
  });
  await Promise.all(writers.map((writer, index) => writer.start(source.daemon.at(IMAGES[index]!), 1)));
  const migration = await migrate(t, pair, IMAGES);
  await migration.reaches('mirroring');
  t.equal(migration.last.bytesLeft, 0, 'nothing of either is left');
  await rewriteBlock(source.daemon.below('a.raw'), target.daemon.at('a.raw'), 8 * MiB);
  await migration.reaches('completed');
  for (const [index, writer] of writers.entries()) {
    const image = IMAGES[index]!;
    await writer.ended();
    t.equal(writer.refusal?.code, 'EROFS', `${image} is fenced`);
    t.ok(await identical(source.daemon.below(image), target.daemon.below(image)), `${image} is identical`);
    t.same((await writer.check(target.daemon.at(image))).lost, []);
    t.equal(await writeRefusal(target.daemon.at(image)), '', `${image} is writable on the target`);
  }
  t.ok(
    migration.last.images.every((image) => image.generation === 1),
    'both have a new generation',
  );
});

t.test('when one image of the group is refused, none is made', async (t) => {
  const pair = await startPair(t);
  const { source, target } = pair;
  for (const image of IMAGES) makeSparseImage(source.daemon.below(image), MiB);
  makeSparseImage(target.daemon.below('b.raw'), 4096);
  await t.rejects(migrate(t, pair, IMAGES), { code: 'ALREADY_EXISTS' });
  t.same(filesOf(target.daemon), ['b.raw']);
  t.equal(await writeRefusal(source.daemon.at('a.raw')), '', 'the source goes on');
});
