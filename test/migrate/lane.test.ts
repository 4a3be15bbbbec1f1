/**
 * Images in sync whose writes are sent to the target by the threads that get them (the lane): both sides stay the same
 * whatever overlaps (G2), nothing is lost (G1), and whatever an operator asks for works as without it.
 */
import { open } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { bytesPerSecond, KiB, MiB, UNLIMITED } from '../../src/leaves/units.js';
import { CutProxy } from '../support/cut-proxy.js';
import { identical } from '../support/cutover.js';
import { makeSparseImage } from '../support/files.js';
import { bothSame, enterLane, HOT, IMAGE, type InSync, inLane, inSync } from '../support/in-lane.js';
import { OverlapLoad } from '../support/overlap-load.js';
import { migrate, restartHost, startPair } from '../support/pair.js';
import { seedFromEnvironment } from '../support/random.js';
import { StampWriter } from '../support/stamp-writer.js';
import { waitFor } from '../support/wait-for.js';

/** Of the same VM. */
const SECOND = 'vm.data';
const STAMPED = { offset: 4 * MiB, length: 4 * MiB };
/** Where nothing is written a second time. */
const ONCE = 12 * MiB;
const JOBS = 4;
const seed = seedFromEnvironment();
t.comment(`seed ${seed}`);

const sum = (all: readonly number[]): number => all.reduce((total, each) => total + each, 0);

t.test('several images of one VM enter and leave the lane together (G2)', async (t) => {
  const pair = await startPair(t);
  const images = [IMAGE, SECOND];
  for (const image of images)
    makeSparseImage(pair.source.daemon.below(image), 16 * MiB, [{ offset: 0, length: 4 * MiB }]);
  const proxy = await CutProxy.start(t, pair.target.daemon.dataAddress);
  const migration = await migrate(t, pair, images, { cutover: 'explicit', to: proxy.address });
  await migration.reaches('mirroring');
  const loads = images.map((_, i) => new OverlapLoad(HOT, seed + i, { discards: 10, durable: 5 }));
  for (let round = 0; round < 2; round++) {
    await enterLane(pair, proxy);
    const before = loads.map(({ changes }) => changes);
    await Promise.all(loads.map((load, i) => load.start(pair.source.daemon.at(images[i]!), JOBS)));
    await waitFor(() => loads.every(({ changes }, i) => changes > before[i]! + 100), 'both go on');
    await Promise.all(loads.map((load) => load.stop()));
    for (const report of await pair.source.client.verify(migration.id))
      t.same(report.mismatches, [], `both sides of ${report.image} are the same`);
  }
  await pair.source.client.cutover(migration.id);
  for (const image of images)
    t.ok(await identical(pair.source.daemon.below(image), pair.target.daemon.below(image)), image);
});

for (const writeBytesMax of [4 * KiB, 256 * KiB])
  t.test(`overlapping writes of ${writeBytesMax} bytes at once leave both sides the same (G2)`, async (t) => {
    const world = await inSync(t);
    const { pair, proxy } = world;
    const load = new OverlapLoad(HOT, seed, { writeBytesMax });
    for (let round = 0; round < 2; round++) {
      await enterLane(pair, proxy);
      await load.start(pair.source.daemon.at(IMAGE), JOBS);
      await inLane(proxy);
      await bothSame(t, world); // under load
      await load.stop();
    }
    await bothSame(t, world);
  });

for (const [what, others] of [
  ['discards', { discards: 10 }],
  ['truncations', { truncations: 10 }],
  ['flushes and durable writes', { syncs: 10, durable: 10 }],
  ['all of these', { discards: 5, truncations: 5, syncs: 5, durable: 5 }],
] as const)
  t.test(`so do ${what} among them (G2)`, async (t) => {
    const world = await inSync(t);
    const { pair, proxy } = world;
    const load = new OverlapLoad(HOT, seed, others);
    for (let round = 0; round < 2; round++) {
      await enterLane(pair, proxy);
      const { changes } = load;
      await load.start(pair.source.daemon.at(IMAGE), JOBS);
      await waitFor(() => load.changes > changes + 100, 'it goes on');
      await load.stop();
      await bothSame(t, world);
    }
  });

/** In sync, and in the lane under a load that can tell what was lost. */
const underLoad = async (t: Test): Promise<{ readonly world: InSync; readonly writer: StampWriter }> => {
  const world = await inSync(t);
  const writer = new StampWriter(STAMPED, seed);
  await enterLane(world.pair, world.proxy);
  await writer.start(world.pair.source.daemon.at(IMAGE), JOBS);
  await inLane(world.proxy);
  return { world, writer };
};

t.test('a limit that is set in the lane is obeyed within a second, and can be lifted', async (t) => {
  const { world, writer } = await underLoad(t);
  const { pair, proxy, migration } = world;
  const limit = 512 * KiB;
  await pair.source.client.setNetworkLimit(migration.id, bytesPerSecond(limit));
  await sleep(1_000);
  const [began, before] = [performance.now(), sum(proxy.carried)];
  // Some writes are larger than what the limit lets through in a second, and go in one piece.
  await waitFor(() => sum(proxy.carried) > before + 6 * limit, 'it goes on');
  const rate = (sum(proxy.carried) - before) / ((performance.now() - began) / 1000);
  t.ok(rate < 2 * limit, `${rate} bytes per second under a limit of ${limit}`);
  await pair.source.client.setNetworkLimit(migration.id, UNLIMITED);
  await writer.stop();
  t.equal(writer.refusal, null);
  await enterLane(pair, proxy);
  await bothSame(t, world);
});

t.test(
  'a migration that is paused in the lane sends nothing, and is in sync when it goes on (G2)',
  async (t) => {
    const world = await inSync(t);
    const { pair, proxy, migration } = world;
    const writer = new StampWriter(STAMPED, seed);
    for (let round = 0; round < 3; round++) {
      await enterLane(pair, proxy);
      await writer.start(pair.source.daemon.at(IMAGE), JOBS);
      await inLane(proxy);
      await pair.source.client.pause(migration.id);
      await migration.reaches('paused');
      // What was under way at the proxy has passed when guests have gone on for a while.
      const { writes } = writer;
      await waitFor(() => writer.writes > writes + 100, 'guests write while it is paused');
      const stream = proxy.carried.at(-1);
      await waitFor(() => writer.writes > writes + 300, 'guests write while it is paused');
      t.equal(proxy.carried.at(-1), stream, 'nothing goes over the stream');
      await pair.source.client.resume(migration.id);
      await migration.reaches('mirroring');
      await writer.stop();
      t.equal(writer.refusal, null);
      await bothSame(t, world);
    }
  },
);

for (const failure of ['cut', 'silence'] as const)
  t.test(`the network is gone (${failure}) under load in the lane: nothing is lost (G1, G2)`, async (t) => {
    const world = await inSync(t);
    const { pair, proxy, migration } = world;
    const path = pair.source.daemon.at(IMAGE);
    const load = new OverlapLoad(HOT, seed);
    const writer = new StampWriter(STAMPED, seed);
    for (let round = 0; round < (failure === 'cut' ? 3 : 1); round++) {
      await enterLane(pair, proxy);
      await writer.start(path, 1);
      await inLane(proxy);
      await load.start(path, 1);
      proxy[failure]();
      await using file = await open(path, 'r+');
      const once = Buffer.alloc(4 * KiB, round + 1);
      const last = [0, 1].map((i) => file.write(once, 0, once.length, ONCE + (2 * round + i) * once.length));
      await migration.reaches('interrupted');
      await Promise.all(last);
      const { writes } = writer;
      await waitFor(() => writer.writes > writes + 50, 'guests go on');
      proxy.heal();
      await migration.reaches('mirroring');
      await Promise.all([load.stop(), writer.stop()]);
      t.equal(writer.refusal, null, 'no guest has seen an error');
      await bothSame(t, world);
    }
    await enterLane(pair, proxy);
    await pair.source.client.cutover(migration.id);
    await migration.reaches('completed');
    t.ok(await identical(pair.source.daemon.below(IMAGE), pair.target.daemon.below(IMAGE)));
    t.same((await writer.check(pair.target.daemon.at(IMAGE))).lost, [], 'every acknowledged write is there');
  });

t.test(
  'a target that is ended under load in the lane: guests go on, and are in sync once it is back',
  async (t) => {
    const world = await inSync(t);
    const { pair, proxy, migration } = world;
    await enterLane(pair, proxy);
    const writer = new StampWriter(STAMPED, seed);
    await writer.start(pair.source.daemon.at(IMAGE), 2);
    await inLane(proxy);
    const { code, stderr } = await pair.target.daemon.cli([
      'unmount',
      pair.target.daemon.mountpoint,
      '--lazy',
    ]);
    t.equal(code, 0, stderr);
    t.same(await pair.target.daemon.exited, { code: 0, signal: null });
    await migration.reaches('interrupted');
    const { writes } = writer;
    await waitFor(() => writer.writes > writes + 50, 'guests go on');
    const target = await restartHost(t, pair.target);
    await migration.reaches('mirroring');
    await writer.stop();
    t.equal(writer.refusal, null, 'no guest has seen an error');
    await bothSame(t, world);
    await pair.source.client.cutover(migration.id);
    t.same((await writer.check(target.daemon.at(IMAGE))).lost, [], 'every acknowledged write is there');
  },
);

t.test('a cutover under load out of the lane loses nothing (G1, G2, G3)', async (t) => {
  const { world, writer } = await underLoad(t);
  const { pair, migration } = world;
  await pair.source.client.cutover(migration.id);
  await migration.reaches('completed');
  await writer.ended();
  t.equal(writer.refusal?.code, 'EROFS');
  t.ok(await identical(pair.source.daemon.below(IMAGE), pair.target.daemon.below(IMAGE)));
  t.same((await writer.check(pair.target.daemon.at(IMAGE))).lost, [], 'every acknowledged write is there');
});
