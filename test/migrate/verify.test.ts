/** `verify` compares both sides while the guest writes, and finds what differs (G2). */
import { closeSync, openSync, writeSync } from 'node:fs';
import t from 'tap';
import { MiB } from '../../src/leaves/units.js';
import { makeSparseImage } from '../support/files.js';
import { migrate, startPair } from '../support/pair.js';
import { StampWriter } from '../support/stamp-writer.js';

const IMAGE = 'vm.raw';

t.test('in sync nothing differs, under load; a changed byte on the target is found', async (t) => {
  const pair = await startPair(t);
  const { source, target } = pair;
  makeSparseImage(source.daemon.below(IMAGE), 48 * MiB, [{ offset: 8 * MiB, length: 16 * MiB }]);
  const writer = new StampWriter({ offset: 0, length: 4 * MiB }, 2);
  await writer.start(source.daemon.at(IMAGE), 2);
  const migration = await migrate(t, pair, [IMAGE], { cutover: 'explicit' });
  await migration.reaches('mirroring');
  const clean = await source.daemon.cli(['verify', migration.id]);
  t.equal(clean.code, 0, clean.stderr);
  const [report] = await source.client.verify(IMAGE);
  t.equal(report?.bytesCompared, 48 * MiB);
  t.same(report?.mismatches, []);
  const fd = openSync(target.daemon.below(IMAGE), 'r+');
  writeSync(fd, 'not what the source has', 20 * MiB + 5);
  closeSync(fd);
  const [found] = await source.client.verify(migration.id);
  t.equal(found?.mismatches.length, 1);
  const { offset, length } = found!.mismatches[0]!;
  t.ok(offset <= 20 * MiB + 5 && offset + length >= 20 * MiB + 28, 'the range contains the change');
  const failed = await source.daemon.cli(['verify', IMAGE]);
  t.equal(failed.code, 1, 'the command says so by its exit status');
  await writer.stop();
  t.equal(writer.refusal, null);
});

t.test('before it is in sync there is nothing to compare', async (t) => {
  const pair = await startPair(t);
  makeSparseImage(pair.source.daemon.below(IMAGE), 32 * MiB, [{ offset: 0, length: 32 * MiB }]);
  const migration = await migrate(t, pair, [IMAGE], { netLimit: 2 * MiB });
  await t.rejects(pair.source.client.verify(migration.id), { code: 'FAILED_PRECONDITION' });
  await t.rejects(
    pair.source.client.cutover(migration.id),
    { code: 'FAILED_PRECONDITION' },
    'nor to hand over',
  );
});
