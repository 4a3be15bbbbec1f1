/** Sparse stays sparse (G6), and what the guest does to the file's shape is replayed. */
import { closeSync, ftruncateSync, openSync, readSync, statSync } from 'node:fs';
import t from 'tap';
import { GiB, MiB } from '../../src/leaves/units.js';
import { identical } from '../support/cutover.js';
import { allocatedBytes, makeSparseImage } from '../support/files.js';
import { migrate, startPair } from '../support/pair.js';
import { runOk } from '../support/run.js';

const IMAGE = 'vm.raw';
/** Frame headers, file system metadata, and blocks that are only partly data. */
const ROUNDING = 2 * MiB;

const readRange = (path: string, offset: number, length: number): Buffer => {
  const buffer = Buffer.alloc(length);
  const fd = openSync(path, 'r');
  readSync(fd, buffer, 0, length, offset);
  closeSync(fd);
  return buffer;
};

t.test('10 GiB with 200 MiB of data moves and allocates 200 MiB', async (t) => {
  const pair = await startPair(t);
  const { source, target } = pair;
  const ranges = Array.from({ length: 50 }, (_, i) => ({ offset: i * 200 * MiB, length: 4 * MiB }));
  makeSparseImage(source.daemon.below(IMAGE), 10 * GiB, ranges);
  const migration = await migrate(t, pair, [IMAGE], { cutover: 'when-in-sync' });
  const { bytesSent } = await migration.reaches('completed');
  t.ok(bytesSent >= 200 * MiB && bytesSent <= 200 * MiB + ROUNDING, `${bytesSent} bytes sent`);
  t.equal(statSync(target.daemon.below(IMAGE)).size, 10 * GiB);
  const [here, there] = [source, target].map(({ daemon }) => allocatedBytes(daemon.below(IMAGE)));
  t.ok(there! <= here! + ROUNDING, `source allocates ${here}, target ${there}`);
  // Reading the holes of both would take the test's time; what they allocate shows that they are holes.
  for (const { offset, length } of ranges)
    t.ok(
      readRange(source.daemon.below(IMAGE), offset, length).equals(
        readRange(target.daemon.below(IMAGE), offset, length),
      ),
    );
});

t.test('blocks of zeroes are not sent and not allocated', async (t) => {
  const pair = await startPair(t);
  const { source, target } = pair;
  makeSparseImage(source.daemon.below(IMAGE), 64 * MiB, [{ offset: 0, length: 8 * MiB }]);
  await runOk('dd', [
    'if=/dev/zero',
    `of=${source.daemon.below(IMAGE)}`,
    'bs=1M',
    'seek=16',
    'count=32',
    'conv=notrunc',
  ]);
  const migration = await migrate(t, pair, [IMAGE], { cutover: 'when-in-sync' });
  const { bytesSent } = await migration.reaches('completed');
  t.ok(bytesSent <= 8 * MiB + ROUNDING, `${bytesSent} bytes sent`);
  t.ok(allocatedBytes(target.daemon.below(IMAGE)) <= 8 * MiB + ROUNDING);
  t.ok(await identical(source.daemon.below(IMAGE), target.daemon.below(IMAGE)));
});

for (const [phase, netLimit] of [
  ['bulk copy', 16 * MiB],
  ['mirroring', undefined],
] as const)
  t.test(`holes punched, growth and truncation in ${phase} are replayed`, async (t) => {
    const pair = await startPair(t);
    const { source, target } = pair;
    const path = source.daemon.at(IMAGE);
    makeSparseImage(source.daemon.below(IMAGE), 48 * MiB, [{ offset: 0, length: 40 * MiB }]);
    const migration = await migrate(t, pair, [IMAGE], {
      cutover: 'explicit',
      ...(netLimit === undefined ? {} : { netLimit }),
    });
    if (phase === 'mirroring') await migration.reaches('mirroring');
    else await migration.until((s) => s.bytesSent > 4 * MiB);
    await runOk('fallocate', ['--punch-hole', '--offset', `${2 * MiB}`, '--length', `${2 * MiB}`, path]);
    await runOk('fallocate', ['--punch-hole', '--offset', `${30 * MiB + 5}`, '--length', `${4 * MiB}`, path]);
    await runOk('fallocate', ['--zero-range', '--offset', `${20 * MiB}`, '--length', `${MiB}`, path]);
    const fd = openSync(path, 'r+');
    ftruncateSync(fd, 38 * MiB + 100);
    ftruncateSync(fd, 56 * MiB);
    closeSync(fd);
    await runOk('dd', ['if=/dev/urandom', `of=${path}`, 'bs=64k', 'seek=832', 'count=16', 'conv=notrunc']);
    await runOk('fallocate', ['--offset', `${60 * MiB}`, '--length', `${MiB}`, path]);
    await migration.reaches('mirroring');
    await source.client.cutover(migration.id);
    await migration.reaches('completed');
    t.equal(statSync(target.daemon.at(IMAGE)).size, 61 * MiB, 'the size follows');
    t.ok(await identical(source.daemon.below(IMAGE), target.daemon.below(IMAGE)), 'the bytes follow');
    const [here, there] = [source, target].map(({ daemon }) => allocatedBytes(daemon.below(IMAGE)));
    t.ok(there! <= here! + MiB, `the holes follow: source allocates ${here}, target ${there}`);
  });
