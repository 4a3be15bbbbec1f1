import t from 'tap';
import { writeRecord } from '../../src/fs/image-record.js';
import { ImageMode } from '../../src/fs/image-table.js';
import type { Clock } from '../../src/leaves/clock.js';
import { systemClock } from '../../src/leaves/clock.js';
import { MigrateFsError } from '../../src/leaves/errors.js';
import { LOST_STALL_MAX } from '../../src/replica/target/held-requests.js';
import { scratchDir } from '../support/scratch.js';
import type { GuestChange } from './target-world.js';
import { ID, IMAGE, TargetWorld } from './target-world.js';

const EROFS = -30;
const RESUME = 1;
const DISCARD = 2;
const GENERATION = IMAGE.generation + 1;
const OFFER = { cutoverOffer: { generations: [GENERATION] } };

const write = (offset: number, length: number, value: number): GuestChange => ({
  op: 'write',
  offset,
  payload: Buffer.alloc(length, value),
});

t.test('before in sync a guest write on the target is EROFS, a sync is not', async (t) => {
  const world = await TargetWorld.start(t);
  const source = await world.started();
  for (const state of ['bulk-copy', 'dirty-resend']) {
    source.connection.send({ phase: { state } });
    await world.state(state);
    t.equal(world.mode(), ImageMode.fenced, `fenced during ${state}`);
    t.equal(await world.guest(write(0, 512, 1)), EROFS);
    t.equal(await world.guest({ op: 'truncate', size: 1 }), EROFS);
    t.equal(await world.guest({ op: 'fsync', datasync: true }), 0);
  }
});

t.test('a phase is acknowledged when guests are served by it', async (t) => {
  const world = await TargetWorld.start(t);
  const source = await world.started();
  t.equal(await source.do({ phase: { state: 'dirty-resend' } }), 'ok');
  t.equal(await source.do({ phase: { state: 'mirroring' } }), 'ok');
  t.equal(world.mode(), ImageMode.routed);
  t.equal(await source.do({ phase: { state: 'mirroring', bytesLeft: 1 } }), 'ok', 'progress, too');
});

t.test('on the first write the target asks, takes the images, and then performs what it held', async (t) => {
  const world = await TargetWorld.start(t);
  const source = await world.started();
  await source.do({ data: { image: 0, offset: 0 } }, Buffer.alloc(8192, 1));
  source.inSync();
  await world.state('mirroring');
  t.equal(world.mode(), ImageMode.routed);
  t.equal(await world.guest({ op: 'fsync', datasync: false }), 0, 'a sync does not start a cutover');
  const first = world.guest(write(0, 4096, 2));
  const second = world.guest(write(2048, 4096, 3));
  await source.next('cutoverRequest');
  t.equal(world.record()?.role, 'replica');
  t.ok(
    world.content().subarray(0, 8192).equals(Buffer.alloc(8192, 1)),
    'nothing is written before ownership',
  );
  const slot = world.targets.get(ID)!.images[0]!.slot;
  source.connection.send(OFFER);
  await source.next('cutoverTaken');
  t.same(await Promise.all([first, second]), [4096, 4096]);
  t.match(world.record(), { role: 'owner', generation: GENERATION, migration: ID });
  const expected = Buffer.alloc(8192, 1);
  expected.fill(2, 0, 4096).fill(3, 2048, 6144);
  t.ok(world.content().subarray(0, 8192).equals(expected), 'held writes are performed in their order');
  t.equal(world.table.mode(slot), ImageMode.idle);
  t.equal(world.table.uncached(slot), false);
  while (world.targets.imageAt(slot)) await new Promise((resolve) => setImmediate(resolve));
  t.same(world.invalidated, [slot]);
  const snapshot = world.targets.get(ID)!.snapshot();
  t.match(snapshot, { state: 'completed', bytesLeft: 0 });
  t.ok(
    snapshot.cutoverStall !== undefined && snapshot.cutoverStall < 1000,
    `stall ${snapshot.cutoverStall} ms`,
  );
});

t.test('an explicit cutover needs no guest, is idempotent, and survives a lost answer', async (t) => {
  const world = await TargetWorld.start(t);
  const source = await world.started({ cutover: 'explicit' });
  source.inSync();
  await world.state('mirroring');
  t.equal(world.mode(), ImageMode.fenced);
  t.equal(await world.guest(write(0, 512, 1)), EROFS);
  source.connection.send({ phase: { state: 'cutover' } });
  await world.state('cutover');
  const held = world.guest(write(0, 512, 9));
  source.connection.send(OFFER);
  source.connection.send(OFFER);
  await source.next('cutoverTaken');
  t.equal(await held, 512, 'a guest that came during the cutover is served after it');
  source.connection.destroy();
  const again = await world.source();
  t.match(await again.hello({ purpose: RESUME, cutover: 'explicit' }), { taken: true });
  again.connection.send(OFFER);
  await again.next('cutoverTaken');
});

t.test('all images of a group are taken, or none; a failure is told and may be repeated (G3)', async (t) => {
  let failing = true;
  const world = await TargetWorld.start(t, {
    context: {
      writeRecord: (fd, record) => {
        if (failing && record.generation === 12) throw new MigrateFsError('INTERNAL', 'EIO');
        writeRecord(fd, record);
      },
    },
  });
  const images = [
    { ...IMAGE, name: 'a.img', generation: 10 },
    { ...IMAGE, name: 'b.img', generation: 11 },
  ];
  const source = await world.started({ images });
  source.inSync();
  await world.state('mirroring');
  const held = world.guest(write(0, 512, 7));
  await source.next('cutoverRequest');
  const offer = { cutoverOffer: { generations: [11, 12] } };
  source.connection.send(offer);
  t.match((await source.next('failure')).failure, { code: 'INTERNAL' });
  t.equal(world.mode(0), ImageMode.routed, 'no guest write is let through');
  t.equal(world.mode(1), ImageMode.routed);
  await t.rejects(world.targets.get(ID)!.cancel(), { code: 'FAILED_PRECONDITION' });
  failing = false;
  source.connection.send(offer);
  await source.next('cutoverTaken');
  t.equal(await held, 512);
  t.match(world.record('a.img'), { role: 'owner', generation: 11 });
  t.match(world.record('b.img'), { role: 'owner', generation: 12 });
});

for (const [what, generations] of [
  ['a stale generation', [IMAGE.generation]],
  ['a generation that nothing could follow', [2 ** 53 - 1]],
  ['too many generations', [GENERATION, GENERATION]],
  ['none', []],
] as const) {
  t.test(`an offer with ${what} is refused`, async (t) => {
    const world = await TargetWorld.start(t);
    const source = await world.started();
    source.inSync();
    source.connection.send({ cutoverOffer: { generations: [...generations] } });
    await source.connection.closed;
    await world.state('interrupted');
    t.equal(world.record()?.role, 'replica');
    t.equal(world.mode(), ImageMode.fenced);
  });
}

t.test('from the offer on nothing changes, discards or cancels the images (G3, G1)', async (t) => {
  const world = await TargetWorld.start(t);
  const source = await world.started();
  source.inSync();
  source.connection.send(OFFER);
  source.send({ data: { image: 0, offset: 0 } }, Buffer.alloc(4096, 5));
  await source.connection.closed;
  await world.state('completed');
  t.ok(world.content().equals(Buffer.alloc(IMAGE.size)), 'a late frame is not applied');
  const late = await world.source();
  t.match((await late.hello({ purpose: DISCARD })).failure, { code: 'FAILED_PRECONDITION' });
  await t.rejects(world.targets.get(ID)!.cancel(), { code: 'FAILED_PRECONDITION' });
  t.equal(world.record()?.role, 'owner');
  const resumed = await world.source();
  await resumed.hello({ purpose: RESUME });
  resumed.connection.send({ discard: {} });
  t.match((await resumed.next('failure')).failure, { code: 'FAILED_PRECONDITION' });
  t.ok(world.exists());
});

t.test('after a restart the record says that the target owns the images', async (t) => {
  const dir = scratchDir(t, 'B-taken');
  const before = await TargetWorld.start(t, { dir });
  const first = await before.started();
  first.inSync();
  first.connection.send(OFFER);
  await first.next('cutoverTaken');
  await before.stop();
  const world = await TargetWorld.start(t, { dir });
  t.match(await (await world.source()).hello({ purpose: RESUME }), { taken: true });
  t.match((await (await world.source()).hello({ purpose: DISCARD })).failure, {
    code: 'FAILED_PRECONDITION',
  });
  t.equal(world.record()?.role, 'owner');
});

t.test('killed between two records, the next run finishes with the same offer', async (t) => {
  const dir = scratchDir(t, 'B-half');
  const images = ['a.img', 'b.img'].map((name) => ({ ...IMAGE, name }));
  const before = await TargetWorld.start(t, {
    dir,
    context: {
      writeRecord: (fd, record) => {
        if (before.record('a.img')?.role === 'owner') throw new MigrateFsError('INTERNAL', 'killed');
        writeRecord(fd, record);
      },
    },
  });
  const first = await before.started({ images });
  first.inSync();
  const offer = { cutoverOffer: { generations: [GENERATION, GENERATION] } };
  first.connection.send(offer);
  await first.next('failure');
  await before.stop();
  const world = await TargetWorld.start(t, { dir });
  const source = await world.source();
  t.match(await source.hello({ purpose: RESUME, images }), { remembers: true, taken: false });
  t.match((await (await world.source()).hello({ purpose: DISCARD, images })).failure, {
    code: 'FAILED_PRECONDITION',
  });
  const again = await world.source();
  t.match(await again.hello({ purpose: RESUME, images }), { remembers: true, taken: false });
  again.connection.send(offer);
  await again.next('cutoverTaken');
  t.equal(world.record('a.img')?.role, 'owner');
  t.equal(world.record('b.img')?.role, 'owner');
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
    for (const callback of [...waiting]) callback();
  };
  return { clock, waiting, runOut };
};

t.test('a guest that waits for a lost source gets EROFS after the longest stall', async (t) => {
  const { clock, waiting, runOut } = impatientClock();
  const world = await TargetWorld.start(t, { clock });
  const source = await world.started();
  source.inSync();
  await world.state('mirroring');
  const held = world.guest(write(0, 512, 1));
  await source.next('cutoverRequest');
  source.connection.destroy();
  await world.state('interrupted');
  t.equal(world.mode(), ImageMode.routed);
  const later = world.guest(write(512, 512, 1));
  t.equal(waiting.size, 1, 'both wait, as long as the first');
  runOut();
  t.same(await Promise.all([held, later]), [EROFS, EROFS]);
  t.equal(world.mode(), ImageMode.fenced);
  t.equal(await world.guest(write(0, 512, 1)), EROFS, 'from then on writes are refused at once');
  t.ok(world.log.some(({ level, message }) => level === 'error' && message.includes('EROFS')));
});

t.test('a guest that writes after the offer waits although the connection is lost', async (t) => {
  let disk = () => {};
  const world = await TargetWorld.start(t, {
    context: {
      writeRecord: (fd, record) => {
        disk();
        writeRecord(fd, record);
      },
    },
  });
  const source = await world.started({ cutover: 'explicit' });
  source.inSync();
  source.connection.send({ phase: { state: 'cutover' } });
  disk = () => {
    throw new MigrateFsError('INTERNAL', 'EIO');
  };
  source.connection.send(OFFER);
  await source.next('failure');
  source.connection.destroy();
  await world.state('interrupted');
  t.equal(world.mode(), ImageMode.routed);
  const held = world.guest(write(0, 512, 1));
  disk = () => {};
  const again = await world.source();
  await again.hello({ purpose: RESUME, cutover: 'explicit' });
  again.connection.send(OFFER);
  await again.next('cutoverTaken');
  t.equal(await held, 512);
});

t.test(
  'a cutover that is taken back under another policy refuses whoever waits, and later ones',
  async (t) => {
    const world = await TargetWorld.start(t);
    const source = await world.started({ cutover: 'explicit' });
    source.inSync();
    source.connection.send({ phase: { state: 'cutover' } });
    await world.state('cutover');
    const held = world.guest(write(0, 512, 1));
    source.connection.send({ phase: { state: 'mirroring' } });
    t.equal(await held, EROFS);
    t.equal(world.mode(), ImageMode.fenced);
  },
);

t.test('a guest that waits is served when the source comes back in time, and asks again', async (t) => {
  const world = await TargetWorld.start(t);
  const source = await world.started();
  source.inSync();
  await world.state('mirroring');
  const held = world.guest(write(0, 512, 1));
  await source.next('cutoverRequest');
  source.connection.destroy();
  await world.state('interrupted');
  const again = await world.source();
  await again.hello({ purpose: RESUME });
  for (const state of ['dirty-resend', 'mirroring']) again.connection.send({ phase: { state } });
  await again.next('cutoverRequest');
  again.connection.send(OFFER);
  t.equal(await held, 512);
});

t.test('held writes are answered when the daemon stops or the migration is discarded', async (t) => {
  for (const end of ['stop', 'discard'] as const) {
    const world = await TargetWorld.start(t);
    const source = await world.started();
    source.inSync();
    await world.state('mirroring');
    const held = world.guest(write(0, 512, 1));
    await source.next('cutoverRequest');
    if (end === 'discard') source.connection.send({ discard: {} });
    else void world.stop();
    t.equal(await held, EROFS, end);
  }
});
