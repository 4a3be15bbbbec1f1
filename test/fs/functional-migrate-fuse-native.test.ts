/** A migration through the portable transport: the image layer is the same, the way to it is not. Attacks G1 to G3. */
import { renameSync, rmSync, statSync, truncateSync } from 'node:fs';
import { open } from 'node:fs/promises';
import t from 'tap';
import { MiB, UNLIMITED } from '../../src/leaves/units.js';
import { identical, writeRefusal } from '../support/cutover.js';
import { makeSparseImage } from '../support/files.js';
import { type Host, migrate, startPair } from '../support/pair.js';
import { StampWriter } from '../support/stamp-writer.js';
import type { Transport } from '../support/test-daemon.js';

const IMAGE = 'vm.raw';
const BLOCK = 4096;
const SIZE = 32 * MiB;
const GROWN = 33 * MiB;
const STAMPED = { offset: 0, length: 2 * MiB };
const STILL = 8 * MiB;
const NET_LIMIT = 2 * MiB;

const routes: readonly { from: Transport; to: Transport }[] = [
  { from: 'fuse-native', to: 'fuse-native' },
  { from: 'kernel', to: 'fuse-native' },
  { from: 'fuse-native', to: 'kernel' },
];

const blockBelow = async ({ daemon }: Host, offset: number): Promise<Buffer> => {
  await using file = await open(daemon.below(IMAGE), 'r');
  return (await file.read(Buffer.alloc(BLOCK), 0, BLOCK, offset)).buffer;
};

for (const { from, to } of routes)
  void t.test(`from ${from} to ${to}, cutover on the first write`, async (t) => {
    const pair = await startPair(t, { source: { transport: from }, target: { transport: to } });
    const { source, target } = pair;
    makeSparseImage(source.daemon.below(IMAGE), SIZE, [{ offset: STILL, length: 12 * MiB }]);
    const writer = new StampWriter(STAMPED, 7);
    await writer.start(source.daemon.at(IMAGE), 2);

    // Slow enough that what follows happens while the image moves; the limit is lifted then.
    const migration = await migrate(t, pair, [IMAGE], { netLimit: NET_LIMIT });
    t.throws(() => renameSync(source.daemon.at(IMAGE), source.daemon.at('other')), { code: 'EBUSY' });
    t.throws(() => rmSync(source.daemon.at(IMAGE)), { code: 'EBUSY' });
    truncateSync(source.daemon.at(IMAGE), GROWN);
    t.equal(await writeRefusal(target.daemon.at(IMAGE)), 'EROFS', 'no write before it is in sync');
    // As a hypervisor does on the target: opened early, and only once, since an open drops what is cached.
    await using early = await open(target.daemon.at(IMAGE), 'r+');
    await early.read(Buffer.alloc(BLOCK), 0, BLOCK, STAMPED.offset);
    await source.client.setNetworkLimit(migration.id, UNLIMITED);

    await migration.reaches('mirroring');
    await early.write(await blockBelow(source, STILL), 0, BLOCK, STILL);
    await migration.reaches('completed');
    await writer.ended();
    const seen = Buffer.alloc(BLOCK);
    await early.read(seen, 0, BLOCK, STAMPED.offset);
    t.ok(seen.equals(await blockBelow(source, STAMPED.offset)), 'what it had read was not cached');

    t.equal(writer.refusal?.code, 'EROFS', 'the writer was fenced, and only that');
    t.ok(await identical(source.daemon.below(IMAGE), target.daemon.below(IMAGE)), 'identical at the fence');
    t.same((await writer.check(target.daemon.at(IMAGE))).lost, [], 'every acknowledged write is there');
    t.equal(statSync(target.daemon.below(IMAGE)).size, GROWN, 'the new size has come along');
    t.equal(await writeRefusal(source.daemon.at(IMAGE)), 'EROFS', 'the source refuses writes');
    t.equal(await writeRefusal(target.daemon.at(IMAGE)), '', 'the target takes them');
  });
