import { closeSync, openSync, writeSync } from 'node:fs';
import t from 'tap';
import { FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, fallocate } from '../../src/fs/libc.js';
import { parseHostPort } from '../../src/leaves/host-port.js';
import { MiB } from '../../src/leaves/units.js';
import { scratchDir } from '../support/scratch.js';
import { makeImage, TestHost } from './source-world.js';

const SIZE = 16 * MiB;

t.test('G2 G6: a restarted source takes its replica over and sends what differs', async (t) => {
  const dir = scratchDir(t, 'source');
  const before = await TestHost.open(t, dir);
  const target = await TestHost.open(t, scratchDir(t, 'target'));
  makeImage(before, 'a.img', SIZE);
  const first = await before.start(['a.img'], target.replica.dataAddress);
  await before.untilState(first.id, 'mirroring');
  const { port } = parseHostPort(before.replica.dataAddress);
  await before.replica.shutdown();
  await target.untilState(first.id, 'interrupted');
  const fd = openSync(before.path('a.img'), 'r+');
  writeSync(fd, 'changed meanwhile', 3 * MiB);
  fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 5 * MiB, 2 * MiB);
  closeSync(fd);
  const source = await TestHost.open(t, dir, { port });
  const { id } = await source.start(['a.img'], target.replica.dataAddress);
  await source.untilState(id, 'mirroring');
  t.ok((await source.replica.get(id)).bytesSent < SIZE / 4, 'not all of it again');
  t.match(await target.replica.get(first.id), { state: 'cancelled' });
  await source.replica.cutover(id);
  t.ok(source.content('a.img').equals(target.content('a.img')));
  t.ok(target.allocated('a.img') <= source.allocated('a.img'), 'the hole is one here, too');
});
