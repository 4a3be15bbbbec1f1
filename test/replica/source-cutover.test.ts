import t from 'tap';
import { MiB } from '../../src/leaves/units.js';
import { scratchDir } from '../support/scratch.js';
import { makeImage, TestHost, writeOn } from './source-world.js';

const SIZE = 24 * MiB;
const EROFS = -30;

const pair = async (t: Parameters<typeof TestHost.open>[0]) => {
  const source = await TestHost.open(t, scratchDir(t, 'source'));
  const target = await TestHost.open(t, scratchDir(t, 'target'));
  return { source, target };
};

t.test('G1 G2 G3: explicit cutover under writes', async (t) => {
  const { source, target } = await pair(t);
  makeImage(source, 'a.img', SIZE);
  const guest = source.guest('a.img');
  const writer = writeOn(guest, SIZE, 7);
  const { id, state } = await source.start(['a.img'], target.replica.dataAddress);
  t.equal(state, 'bulk-copy');
  const early = `it is bulk-copy: wait until it is mirroring (migratefs status ${id})`;
  await t.rejects(source.replica.cutover(id), { code: 'FAILED_PRECONDITION', message: early });
  await t.rejects(source.replica.verify(id), { code: 'FAILED_PRECONDITION', message: early });
  await source.untilState(id, 'mirroring');
  await t.rejects(target.replica.cutover(id), { code: 'FAILED_PRECONDITION' });
  const verified = await source.replica.verify(id);
  t.strictSame(verified[0]?.mismatches, [], 'compared while written to');
  t.ok((await writer.stop()) > 0);
  const done = await source.replica.cutover(id);
  t.equal(done.state, 'completed');
  await t.rejects(source.replica.verify(id), { message: `cannot verify migration ${id}: it is completed` });
  t.equal(done.images[0]?.generation, 1);
  t.ok(source.content('a.img').equals(target.content('a.img')), 'identical');
  t.equal(await guest.write(0, Buffer.from('late')), EROFS, 'the source is fenced');
  const there = target.guest('a.img');
  t.equal(await there.write(0, Buffer.from('new home')), 8, 'the target is not');
  await t.rejects(source.start(['a.img'], target.replica.dataAddress), {
    code: 'FAILED_PRECONDITION',
    message: /owned by 127\.0\.0\.1/,
  });
  guest.close();
  there.close();
});

t.test('when in sync, it cuts over by itself', async (t) => {
  const { source, target } = await pair(t);
  makeImage(source, 'a.img', SIZE);
  const { id } = await source.start(['a.img'], target.replica.dataAddress, { cutover: 'when-in-sync' });
  await source.untilState(id, 'completed');
  t.ok(source.content('a.img').equals(target.content('a.img')));
});

t.test("G3: the target's first write takes the images over", async (t) => {
  const { source, target } = await pair(t);
  makeImage(source, 'a.img', SIZE);
  const guest = source.guest('a.img');
  const { id } = await source.start(['a.img'], target.replica.dataAddress, { cutover: 'on-first-write' });
  const there = target.guest('a.img');
  await source.untilState(id, 'mirroring');
  await target.untilState(id, 'mirroring');
  t.equal(await guest.write(100, Buffer.from('source')), 6);
  const before = source.content('a.img');
  t.equal(await there.write(200, Buffer.from('target')), 6);
  const { state } = await source.untilState(id, 'completed');
  t.equal(state, 'completed');
  t.equal(await guest.write(0, Buffer.from('x')), EROFS);
  before.write('target', 200);
  t.ok(target.content('a.img').equals(before), 'what was there at the fence, and the write');
  guest.close();
  there.close();
});

t.test('a group becomes in sync and cuts over together', async (t) => {
  const { source, target } = await pair(t);
  makeImage(source, 'a.img', SIZE, 1);
  makeImage(source, 'b.img', 8 * MiB, 2);
  const guests = [source.guest('a.img'), source.guest('b.img')] as const;
  const writers = [writeOn(guests[0], SIZE, 3), writeOn(guests[1], 8 * MiB, 4)];
  const { id } = await source.start(['a.img', 'b.img'], target.replica.dataAddress);
  await source.untilState(id, 'mirroring');
  for (const writer of writers) await writer.stop();
  await source.replica.cutover(id);
  for (const name of ['a.img', 'b.img']) t.ok(source.content(name).equals(target.content(name)), name);
  for (const guest of guests) guest.close();
});

t.test('G6: size changes and holes are replayed in every phase', async (t) => {
  const { source, target } = await pair(t);
  makeImage(source, 'a.img', SIZE);
  const guest = source.guest('a.img');
  const PUNCH = 3;
  const limit = { netLimit: (20 * MiB) as never };
  const { id } = await source.start(['a.img'], target.replica.dataAddress, limit);
  t.equal(await guest.fallocate(PUNCH, 1 * MiB, 6 * MiB), 0);
  t.equal(await guest.truncate(SIZE - 5 * MiB), 0);
  t.equal(await guest.truncate(SIZE + 3 * MiB + 77), 0);
  await source.replica.setLimits(id, { netLimit: Number.POSITIVE_INFINITY as never });
  await source.untilState(id, 'mirroring');
  t.equal(await guest.fallocate(PUNCH, 9 * MiB + 5, 2 * MiB), 0);
  t.equal(await guest.fallocate(16, 12 * MiB, 1 * MiB), 0, 'zero range');
  t.equal(await guest.truncate(SIZE + 1), 0);
  t.equal(await guest.fallocate(0, SIZE, 2 * MiB), 0, 'preallocate past the end');
  t.equal(await guest.write(SIZE + 4 * MiB, Buffer.from('far')), 3);
  t.equal(await guest.fsync(), 0);
  await source.replica.cutover(id);
  t.ok(source.content('a.img').equals(target.content('a.img')));
  t.ok(target.allocated('a.img') <= source.allocated('a.img') + MiB, 'no more than the source allocates');
  guest.close();
});
