/** A VM that resumes on the target while the connection is broken for a moment. */
import assert from 'node:assert/strict';
import t from 'tap';
import { ImageMode } from '../../src/fs/image-table.js';
import type { Clock } from '../../src/leaves/clock.js';
import { systemClock } from '../../src/leaves/clock.js';
import { MiB, millis } from '../../src/leaves/units.js';
import { LOST_STALL_MAX } from '../../src/replica/target/held-requests.js';
import { CutProxy } from '../support/cut-proxy.js';
import { scratchDir } from '../support/scratch.js';
import { makeImage, TestHost } from './source-world.js';
import type { GuestChange } from './target-world.js';
import { ID, IMAGE, TargetWorld } from './target-world.js';

type Source = Awaited<ReturnType<TargetWorld['started']>>;

const EROFS = -30;
const RESUME = 1;
const OFFER = { cutoverOffer: { generations: [IMAGE.generation + 1] } };

const write = (offset: number, length: number, value: number): GuestChange => ({
  op: 'write',
  offset,
  payload: Buffer.alloc(length, value),
});

/** Real time, but for the long waits, which the test lets run out at will. */
const impatientClock = () => {
  const waiting = new Set<() => void>();
  const clock: Clock = {
    ...systemClock,
    after: (delay, callback) => {
      if (delay < LOST_STALL_MAX - 1000) return systemClock.after(delay, callback);
      waiting.add(callback);
      return () => waiting.delete(callback);
    },
  };
  const runOut = (): void => {
    for (const callback of [...waiting]) if (waiting.delete(callback)) callback();
  };
  return { clock, waiting, runOut };
};

const broken = async (
  t: Parameters<typeof TargetWorld.start>[0],
  cutover = 'on-first-write',
): Promise<ReturnType<typeof impatientClock> & { world: TargetWorld }> => {
  const time = impatientClock();
  const world = await TargetWorld.start(t, { clock: time.clock });
  const source = await world.started({ cutover });
  await source.do({ data: { image: 0, offset: 0 } }, Buffer.alloc(8192, 1));
  source.inSync();
  await world.state('mirroring');
  source.connection.destroy();
  await world.state('interrupted');
  return { world, ...time };
};

/** Connected again, and told the size, as at the beginning of each round; that is no change. */
const resumed = async (world: TargetWorld): Promise<Source> => {
  const source = await world.source();
  const { remembers } = await source.hello({ purpose: RESUME });
  assert(remembers);
  source.connection.send({ phase: { state: 'dirty-resend' } });
  assert.equal(await source.do({ resize: { image: 0, size: IMAGE.size } }), 'ok');
  return source;
};

t.test('G3: its first write waits for the source, and is performed when the images are owned', async (t) => {
  const { world, waiting } = await broken(t);
  t.equal(world.mode(), ImageMode.routed);
  const held = [world.guest(write(0, 4096, 2)), world.guest(write(2048, 4096, 3))];
  const source = await resumed(world);
  t.ok(
    world.content().subarray(0, 8192).equals(Buffer.alloc(8192, 1)),
    'nothing is written before ownership',
  );
  source.connection.send({ phase: { state: 'mirroring' } });
  await source.next('cutoverRequest');
  t.equal(world.record()?.role, 'replica');
  source.connection.send(OFFER);
  await source.next('cutoverTaken');
  t.same(await Promise.all(held), [4096, 4096]);
  const expected = Buffer.alloc(8192, 1).fill(2, 0, 4096).fill(3, 2048, 6144);
  t.ok(world.content().subarray(0, 8192).equals(expected));
  t.equal(waiting.size, 0, 'nothing waits any more');
});

t.test('a first write that comes before the images are in sync again waits as well', async (t) => {
  const { world } = await broken(t);
  const source = await resumed(world);
  t.equal(world.mode(), ImageMode.routed);
  const held = world.guest(write(0, 512, 2));
  source.connection.send({ phase: { state: 'mirroring' } });
  await source.next('cutoverRequest');
  source.connection.send(OFFER);
  t.equal(await held, 512);
});

for (const [what, change] of [
  ['bytes', { data: { image: 0, offset: 4096 } }],
  ['a hole', { hole: { image: 0, offset: 0, length: 4096 } }],
  ['the size', { resize: { image: 0, size: IMAGE.size + 4096 } }],
  ['an allocation', { allocate: { image: 0, mode: 0, offset: 0, length: 4096 } }],
] as const) {
  t.test(`G1: refused when the source has changed ${what} since: the VM may have read the old`, async (t) => {
    const { world } = await broken(t);
    const held = world.guest(write(0, 512, 2));
    const source = await resumed(world);
    t.equal(await source.do(change, 'data' in change ? Buffer.alloc(512, 7) : undefined), 'ok');
    source.connection.send({ phase: { state: 'mirroring' } });
    t.equal(await held, EROFS);
    t.ok(world.log.some(({ level, message }) => level === 'warn' && message.includes('EROFS')));
    const later = world.guest(write(0, 512, 3));
    await source.next('cutoverRequest');
    source.connection.send(OFFER);
    t.equal(await later, 512, 'who comes when it is in sync is served');
  });
}

t.test('a break that lasts: EROFS, from then on at once', async (t) => {
  const { world, waiting, runOut } = await broken(t);
  const held = world.guest(write(0, 512, 1));
  runOut();
  t.equal(await held, EROFS);
  t.equal(world.mode(), ImageMode.fenced);
  t.equal(await world.guest(write(0, 512, 1)), EROFS);
  t.equal(waiting.size, 0);
  const source = await resumed(world);
  t.equal(world.mode(), ImageMode.fenced, 'until it is in sync again');
  source.connection.send({ phase: { state: 'mirroring' } });
  await world.state('mirroring');
  t.equal(world.mode(), ImageMode.routed);
});

t.test('a VM that resumes late into a break gets EROFS at once', async (t) => {
  const { world, runOut } = await broken(t);
  runOut();
  t.equal(world.mode(), ImageMode.fenced);
  t.equal(await world.guest(write(0, 512, 1)), EROFS);
});

t.test('who waits is answered when the migration is cancelled or the daemon stops', async (t) => {
  for (const end of ['cancel', 'stop'] as const) {
    const { world, waiting } = await broken(t);
    const held = world.guest(write(0, 512, 1));
    if (end === 'cancel') await world.targets.get(ID)!.cancel();
    else await world.stop();
    t.equal(await held, EROFS, end);
    t.equal(waiting.size, 0, 'no time is left to run out');
    t.equal(world.exists(), end === 'stop');
  }
});

t.test('nobody waits where a write does not ask for the images', async (t) => {
  const { world } = await broken(t, 'explicit');
  t.equal(world.mode(), ImageMode.fenced);
  t.equal(await world.guest(write(0, 512, 1)), EROFS);
});

t.test('nobody waits where it was not in sync', async (t) => {
  const world = await TargetWorld.start(t);
  const source = await world.started();
  source.connection.send({ phase: { state: 'dirty-resend' } });
  await world.state('dirty-resend');
  source.connection.destroy();
  await world.state('interrupted');
  t.equal(world.mode(), ImageMode.fenced);
  t.equal(await world.guest(write(0, 512, 1)), EROFS);
});

t.test('G1 G3: a VM moves during a break between two daemons', async (t) => {
  const SIZE = 4 * MiB;
  const peerTimeout = millis(800);
  const source = await TestHost.open(t, scratchDir(t, 'source'), { peerTimeout });
  const target = await TestHost.open(t, scratchDir(t, 'target'), { peerTimeout });
  const proxy = await CutProxy.start(t, target.replica.dataAddress);
  const before = makeImage(source, 'a.img', SIZE);
  const here = source.guest('a.img');
  const { id } = await source.start(['a.img'], proxy.address, { cutover: 'on-first-write' });
  await source.untilState(id, 'mirroring');
  t.equal(await here.write(MiB, Buffer.from('its last write here')), 19);
  before.write('its last write here', MiB);
  proxy.cut();
  await Promise.all([source, target].map((host) => host.untilState(id, 'interrupted')));
  const there = target.guest('a.img');
  const first = there.write(200, Buffer.from('its first there'));
  proxy.heal();
  t.equal(await first, 15);
  before.write('its first there', 200);
  await source.untilState(id, 'completed');
  t.equal(await here.write(0, Buffer.from('x')), EROFS);
  t.ok(target.content('a.img').equals(before));
  here.close();
  there.close();
});
