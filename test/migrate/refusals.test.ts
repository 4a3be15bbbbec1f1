/** What cannot be migrated is refused with a code and a reason, and nothing is touched (DESIGN 6). */
import { closeSync, linkSync, mkdirSync, openSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { MiB } from '../../src/leaves/units.js';
import { identical, rewriteBlock, writeRefusal } from '../support/cutover.js';
import { filesOf } from '../support/debris.js';
import { digestOf, makeSparseImage } from '../support/files.js';
import { migrate, startPair } from '../support/pair.js';
import { runOk } from '../support/run.js';
import { scratchDir } from '../support/scratch.js';
import { smallDisk } from '../support/small-disk.js';

const IMAGE = 'vm.raw';

t.test('names that leave the exported directory', async (t) => {
  const pair = await startPair(t);
  const { source, target } = pair;
  const outside = join(scratchDir(t, 'outside'), 'secret.raw');
  makeSparseImage(outside, MiB, [{ offset: 0, length: 4096 }]);
  makeSparseImage(source.daemon.below(IMAGE), MiB, [{ offset: 0, length: 4096 }]);
  mkdirSync(source.daemon.below('folder'));
  symlinkSync(outside, source.daemon.below('link-out.raw'));
  symlinkSync('../../secret.raw', source.daemon.below('folder/up.raw'));
  symlinkSync('/', source.daemon.below('root'));
  const names = [
    '../secret.raw',
    'folder/../../secret.raw',
    outside,
    'link-out.raw',
    'folder/up.raw',
    `root${outside}`,
    'folder',
    '',
  ];
  for (const name of names)
    await t.rejects(migrate(t, pair, [name]), { code: 'INVALID_ARGUMENT' }, JSON.stringify(name));
  await t.rejects(migrate(t, pair, ['missing.raw']), { code: 'NOT_FOUND' });
  await t.rejects(migrate(t, pair, [IMAGE, IMAGE]), { code: 'INVALID_ARGUMENT' }, 'twice the same');
  t.same(filesOf(target.daemon), [], 'nothing was made on the target');
  t.equal((await source.client.list()).filter((m) => m.state !== 'failed').length, 0, 'nothing runs');
});

t.test('a target that is given by its control address', async (t) => {
  const pair = await startPair(t);
  const { source, target } = pair;
  makeSparseImage(source.daemon.below(IMAGE), MiB, [{ offset: 0, length: 4096 }]);
  const { controlAddress } = target.daemon;
  await t.rejects(migrate(t, pair, [IMAGE], { to: controlAddress }), {
    code: 'INVALID_ARGUMENT',
    message: /^127\.0\.0\.1:\d+ is no data port of a daemon .*: give the data address/,
  });
  t.equal(await writeRefusal(source.daemon.at(IMAGE)), '', 'the source can be written');
});

t.test('an existing file on the target is not touched', async (t) => {
  const pair = await startPair(t);
  const { source, target } = pair;
  makeSparseImage(source.daemon.below(IMAGE), MiB, [{ offset: 0, length: 4096 }]);
  writeFileSync(target.daemon.below(IMAGE), 'somebody else needs this');
  const before = await digestOf(target.daemon.below(IMAGE));
  await t.rejects(migrate(t, pair, [IMAGE]), {
    code: 'ALREADY_EXISTS',
    message: /was not touched: remove it .* or move it away/,
  });
  t.equal(await digestOf(target.daemon.below(IMAGE)), before);
  t.equal(await writeRefusal(target.daemon.at(IMAGE)), '', 'it can be written as before');
  t.equal(await writeRefusal(source.daemon.at(IMAGE)), '', 'and so can the source');
});

t.test('a target disk too small for what the source allocates', async (t) => {
  const folder = join(scratchDir(t, 'small'), 'images');
  await smallDisk(t, folder, 16 * MiB);
  const pair = await startPair(t, { target: { imageDir: folder } });
  makeSparseImage(pair.source.daemon.below(IMAGE), 64 * MiB, [{ offset: 0, length: 32 * MiB }]);
  await t.rejects(migrate(t, pair, [IMAGE]), { code: 'RESOURCE_EXHAUSTED', message: /\d/ });
  t.same(filesOf(pair.target.daemon), []);
  await pair.target.daemon.stop();
});

t.test('an image that is migrating already', async (t) => {
  const pair = await startPair(t);
  makeSparseImage(pair.source.daemon.below(IMAGE), 8 * MiB, [{ offset: 0, length: MiB }]);
  makeSparseImage(pair.source.daemon.below('other.raw'), MiB);
  const first = await migrate(t, pair, [IMAGE]);
  await first.reaches('mirroring');
  await t.rejects(migrate(t, pair, [IMAGE]), { code: 'FAILED_PRECONDITION', message: new RegExp(first.id) });
  await t.rejects(
    migrate(t, pair, ['other.raw', IMAGE]),
    { code: 'FAILED_PRECONDITION' },
    'in a group as well',
  );
  t.equal(first.last.state, 'mirroring', 'the first goes on');
  await rewriteBlock(pair.source.daemon.below(IMAGE), pair.target.daemon.at(IMAGE), 0);
  await first.reaches('completed');
  t.ok(await identical(pair.source.daemon.below(IMAGE), pair.target.daemon.below(IMAGE)));
});

t.test('an image that is open for writing past the mount', async (t) => {
  const pair = await startPair(t);
  const { source, target } = pair;
  const backing = source.daemon.below(IMAGE);
  makeSparseImage(backing, 8 * MiB, [{ offset: 0, length: MiB }]);
  const elsewhere = join(scratchDir(t, 'elsewhere'), 'link');
  linkSync(backing, elsewhere);
  const refused = (who: RegExp): Promise<unknown> =>
    t.rejects(migrate(t, pair, [IMAGE]), { code: 'FAILED_PRECONDITION', message: who });

  const past = openSync(elsewhere, 'r+');
  await refused(
    new RegExp(
      `'${IMAGE}' is open for writing past the mount, by .* \\(pid ${process.pid}\\): .* started again`,
    ),
  );
  closeSync(past);
  const { stdout } = await runOk('losetup', ['--find', '--show', backing]);
  const loop = stdout.trim();
  let attached = true;
  t.teardown(() => attached && runOk('losetup', ['-d', loop]));
  await refused(new RegExp(`by ${loop}:`));
  await runOk('losetup', ['-d', loop]);
  attached = false;
  t.same(filesOf(target.daemon), [], 'nothing was made on the target');

  const open = [openSync(backing, 'r'), openSync(source.daemon.at(IMAGE), 'r+')];
  t.teardown(() => {
    for (const fd of open) closeSync(fd);
  });
  const migration = await migrate(t, pair, [IMAGE]);
  const { state } = await migration.reaches('mirroring');
  t.equal(state, 'mirroring', 'who reads it, and who writes through the mount, is in no way');
});

t.test('deadlines that cannot be met', async (t) => {
  const pair = await startPair(t);
  makeSparseImage(pair.source.daemon.below(IMAGE), 64 * MiB, [{ offset: 0, length: 64 * MiB }]);
  await t.rejects(migrate(t, pair, [IMAGE], { deadline: Date.now() - 1000 }), { code: 'INVALID_ARGUMENT' });
  await t.rejects(
    migrate(t, pair, [IMAGE], { deadlineAfter: 2000, netLimit: MiB }),
    { code: 'FAILED_PRECONDITION', message: /\d/ },
    '64 MiB at 1 MiB/s take more than 2 s',
  );
  t.same(filesOf(pair.target.daemon), []);
  t.equal(await writeRefusal(pair.source.daemon.at(IMAGE)), '');
});

t.test('a target that does not answer, and the source itself', async (t) => {
  const pair = await startPair(t);
  makeSparseImage(pair.source.daemon.below(IMAGE), MiB);
  await t.rejects(migrate(t, pair, [IMAGE], { to: '127.0.0.1:1' }), { code: 'UNAVAILABLE' });
  await t.rejects(migrate(t, pair, [IMAGE], { to: pair.source.daemon.dataAddress }), {
    code: 'INVALID_ARGUMENT',
  });
  t.equal(await writeRefusal(pair.source.daemon.at(IMAGE)), '');
  const good = await migrate(t, pair, [IMAGE]);
  await good.reaches('mirroring');
});
