import { closeSync, openSync } from 'node:fs';
import t from 'tap';
import { Errno } from '../../src/fs/errno.js';
import { IMAGE_RECORD_XATTR } from '../../src/fs/image-record.js';
import { cString, fgetxattr } from '../../src/fs/libc.js';
import type { MigrationState } from '../../src/leaves/migration.js';
import { MiB, millis } from '../../src/leaves/units.js';
import { runOk } from '../support/run.js';
import { scratchDir } from '../support/scratch.js';
import { smallDisk } from '../support/small-disk.js';
import { waitFor } from '../support/wait-for.js';
import { makeImage, TestHost, writeOn } from './source-world.js';

const SIZE = 16 * MiB;

const pair = async (t: Parameters<typeof TestHost.open>[0]) => ({
  source: await TestHost.open(t, scratchDir(t, 'source')),
  target: await TestHost.open(t, scratchDir(t, 'target')),
});

const phases: readonly MigrationState[] = ['bulk-copy', 'mirroring', 'paused'];
for (const phase of phases)
  t.test(`G4: cancelled while ${phase}, nothing is left on the target`, async (t) => {
    const { source, target } = await pair(t);
    makeImage(source, 'a.img', SIZE);
    const guest = source.guest('a.img');
    const writer = writeOn(guest, SIZE, 5);
    const slow = phase === 'mirroring' ? {} : { netLimit: (4 * MiB) as never };
    const { id } = await source.start(['a.img'], target.replica.dataAddress, slow);
    if (phase === 'mirroring') await source.untilState(id, 'mirroring');
    if (phase === 'paused') {
      t.equal((await source.replica.pause(id)).state, 'paused');
      await t.rejects(source.replica.cutover(id), { message: `it is paused: migratefs resume ${id}` });
    }
    t.ok(target.has('a.img'));
    const cancelled = await source.replica.cancel(id);
    t.equal(cancelled.state, 'cancelled');
    t.equal((await source.replica.cancel(id)).state, 'cancelled', 'idempotent');
    await target.untilState(id, 'cancelled');
    await waitFor(() => !target.has('a.img'), 'the replica is removed');
    t.ok((await writer.stop()) > 0, 'the writer never failed');
    const again = await source.start(['a.img'], target.replica.dataAddress);
    await source.untilState(again.id, 'mirroring');
    await source.replica.cutover(again.id);
    t.ok(source.content('a.img').equals(target.content('a.img')), 'and it can be migrated afterwards');
    guest.close();
  });

t.test(
  'G1: a migration that is ending cannot be paused, which would leave its guests tracked by nobody',
  async (t) => {
    const { source, target } = await pair(t);
    makeImage(source, 'a.img', SIZE);
    const guest = source.guest('a.img');
    const { id } = await source.start(['a.img'], target.replica.dataAddress);
    await source.untilState(id, 'mirroring');
    const cancelled = source.replica.cancel(id);
    await t.rejects(source.replica.pause(id), { code: 'FAILED_PRECONDITION', message: /it is ending/ });
    await t.rejects(source.replica.verify(id), { code: 'FAILED_PRECONDITION', message: /it is ending/ });
    t.equal((await cancelled).state, 'cancelled');
    t.equal(await guest.write(0, Buffer.from('on')), 2);
    guest.close();
  },
);

t.test('G4: cancel does not wait for a target that is gone', async (t) => {
  const { source, target } = await pair(t);
  makeImage(source, 'a.img', SIZE);
  const guest = source.guest('a.img');
  const { id } = await source.start(['a.img'], target.replica.dataAddress);
  await source.untilState(id, 'mirroring');
  await target.replica.shutdown();
  await source.untilState(id, 'interrupted');
  t.equal((await source.replica.cancel(id)).state, 'cancelled');
  t.equal(await guest.write(0, Buffer.from('on')), 2);
  guest.close();
});

t.test('G4: a target that runs full fails the migration and keeps nothing', async (t) => {
  const disk = scratchDir(t, 'disk');
  const folder = `${disk}/images`;
  await smallDisk(t, folder, 40 * MiB);
  const source = await TestHost.open(t, scratchDir(t, 'source'));
  const target = await TestHost.open(t, folder);
  makeImage(source, 'a.img', SIZE);
  makeImage(target, 'other', 5 * MiB);
  const guest = source.guest('a.img');
  const limit = { netLimit: (8 * MiB) as never };
  const { id } = await source.start(['a.img'], target.replica.dataAddress, limit);
  makeImage(target, 'ballast', 30 * MiB);
  const failed = await source.untilState(id, 'failed');
  t.equal(failed.error?.code, 'RESOURCE_EXHAUSTED');
  t.equal(await guest.write(0, Buffer.from('on')), 2);
  await target.untilState(id, 'failed', 'cancelled');
  await waitFor(() => !target.has('a.img'), 'the replica is removed');
  t.ok(target.has('other'));
  guest.close();
});

t.test('what cannot begin leaves nothing', async (t) => {
  const { source, target } = await pair(t);
  const to = target.replica.dataAddress;
  makeImage(source, 'a.img', 1 * MiB);
  makeImage(target, 'taken.img', 1 * MiB);
  makeImage(source, 'taken.img', 1 * MiB);
  await t.rejects(source.start(['a.img', 'a.img'], to), { code: 'INVALID_ARGUMENT' });
  await t.rejects(source.start([], to), { code: 'INVALID_ARGUMENT' });
  await t.rejects(source.start(['../a.img'], to), { code: 'INVALID_ARGUMENT' });
  await t.rejects(source.start(['none.img'], to), { code: 'NOT_FOUND' });
  await t.rejects(source.start(['a.img', 'taken.img'], to), { code: 'ALREADY_EXISTS' });
  t.notOk(target.has('a.img'), 'the first of the group was removed again');
  await t.rejects(source.start(['a.img'], to, { deadline: millis(1) }), {
    code: 'INVALID_ARGUMENT',
    message: /in the past/,
  });
  await t.rejects(
    source.start(['a.img'], to, { deadline: millis(Date.now() + 10_000), netLimit: 1000 as never }),
    { code: 'FAILED_PRECONDITION', message: /1048576 bytes at 1000 bytes\/s take 1048\.6 s/ },
  );
  await t.rejects(source.start(['a.img'], source.replica.dataAddress), {
    code: 'INVALID_ARGUMENT',
    message: /this daemon itself/,
  });
  await t.rejects(source.start(['a.img'], '127.0.0.1:1'), {
    code: 'UNAVAILABLE',
    message: /migratefs mount/,
  });
  const { id } = await source.start(['a.img'], to);
  await t.rejects(source.start(['a.img'], to), { code: 'FAILED_PRECONDITION', message: new RegExp(id) });
  await source.replica.cancel(id);
});

t.test('an image that could not be fenced is refused at the start, not at the cutover', async (t) => {
  const folder = scratchDir(t, 'disk');
  await runOk('mount', ['-t', 'ramfs', 'mfs-test', folder]);
  t.teardown(() => runOk('umount', ['-l', folder]));
  const source = await TestHost.open(t, folder);
  const target = await TestHost.open(t, scratchDir(t, 'target'));
  makeImage(source, 'a.img', 1 * MiB);
  const refusal = { code: 'FAILED_PRECONDITION', message: /EOPNOTSUPP.*use ext4/ };
  await t.rejects(source.start(['a.img'], target.replica.dataAddress), refusal);
  await t.rejects(source.start(['a.img'], target.replica.dataAddress), refusal, 'its pin was given back');
  t.notOk(target.has('a.img'));
});

t.test('G4: to find out whether it could be fenced leaves nothing on an image', async (t) => {
  const { source, target } = await pair(t);
  makeImage(source, 'a.img', 1 * MiB);
  const { id } = await source.start(['a.img'], target.replica.dataAddress);
  const fd = openSync(source.path('a.img'), 'r');
  t.teardown(() => closeSync(fd));
  for (const name of [IMAGE_RECORD_XATTR, `${IMAGE_RECORD_XATTR}.probe`])
    t.equal(fgetxattr(fd, cString(name), new Uint8Array(0), 0), -Errno.ENODATA, name);
  await source.replica.cancel(id);
});
