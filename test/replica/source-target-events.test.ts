import { closeSync, openSync } from 'node:fs';
import t from 'tap';
import { readRecord } from '../../src/fs/image-record.js';
import { FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE } from '../../src/fs/libc.js';
import { GiB, KiB, MiB } from '../../src/leaves/units.js';
import { migratefs } from '../../src/replica/wire/generated/data.js';
import { scratchDir } from '../support/scratch.js';
import { FakeTarget } from './source-fake-target.js';
import { makeImage, TestHost } from './source-world.js';

const SIZE = 2 * MiB;

const pair = async (t: Parameters<typeof TestHost.open>[0]) => {
  const source = await TestHost.open(t, scratchDir(t, 'source'));
  const target = await FakeTarget.open(t);
  makeImage(source, 'a.img', SIZE);
  return { source, target };
};

t.test('mirroring is reported only once the target has entered it', async (t) => {
  const { source, target } = await pair(t);
  const guest = source.guest('a.img');
  target.holds = ({ body, seq }) => body === 'phase' && seq > 0;
  const announced = new Promise<void>((resolve) => {
    target.onFrame = (frame) => {
      if (frame.body === 'phase' && frame.phase.state === 'mirroring') resolve();
    };
  });
  const { id } = await source.start(['a.img'], target.address);
  await announced;
  t.equal(await guest.write(0, Buffer.alloc(64 * KiB, 1)), 64 * KiB, 'guests go on meanwhile');
  t.equal((await source.replica.get(id)).state, 'dirty-resend');
  target.onFrame = () => undefined;
  target.release();
  await source.untilState(id, 'mirroring');
  await source.replica.cancel(id);
  guest.close();
});

t.test('a request for the images that overtakes the acknowledged phase is granted', async (t) => {
  const { source, target } = await pair(t);
  target.holds = ({ body, seq }) => body === 'phase' && seq > 0;
  target.onFrame = (frame) => {
    if (frame.body === 'phase' && frame.seq > 0) {
      target.send({ cutoverRequest: {} });
      setImmediate(() => target.release());
    } else if (frame.body === 'cutoverOffer') target.send({ cutoverTaken: {} });
  };
  const { id } = await source.start(['a.img'], target.address, { cutover: 'on-first-write' });
  await source.untilState(id, 'completed');
});

t.test('a target that gives up before the source has begun', async (t) => {
  const { source, target } = await pair(t);
  const guest = source.guest('a.img');
  target.onHello = ({ purpose }) =>
    purpose === migratefs.data.Hello.Purpose.START
      ? { next: [{ failure: { code: 'CANCELLED', message: 'not here' } }] }
      : {};
  const { id } = await source.start(['a.img'], target.address);
  await source.untilState(id, 'cancelled');
  t.equal(await guest.write(0, Buffer.from('as before')), 9);
  t.equal(source.content('a.img').toString('latin1', 0, 9), 'as before');
  guest.close();
});

t.test('an image that grew beyond its bitmap never becomes in sync', async (t) => {
  const { source, target } = await pair(t);
  const guest = source.guest('a.img');
  target.holds = ({ body }) => body === 'data';
  const { id } = await source.start(['a.img'], target.address);
  t.equal(await guest.fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 1500 * GiB, MiB), 0);
  target.release();
  const { state, error } = await source.untilState(id, 'mirroring', 'failed');
  t.equal(state, 'failed');
  t.equal(error?.code, 'RESOURCE_EXHAUSTED');
  guest.close();
});

t.test('G3 G4: a target that gave up before it saw the offer gives the images back', async (t) => {
  for (const how of ['frame', 'resume'] as const) {
    const { source, target } = await pair(t);
    const guest = source.guest('a.img');
    const failure = { code: 'CANCELLED', message: 'given up' };
    target.onFrame = ({ body }) => {
      if (body !== 'cutoverOffer') return;
      if (how === 'frame') target.send({ failure });
      else target.close();
    };
    target.onHello = ({ purpose }) =>
      purpose === migratefs.data.Hello.Purpose.RESUME ? { reply: { failure } } : {};
    const { id } = await source.start(['a.img'], target.address);
    await source.untilState(id, 'mirroring');
    await t.rejects(source.replica.cutover(id), { code: how === 'frame' ? 'CANCELLED' : 'UNAVAILABLE' });
    await source.untilState(id, 'cancelled');
    t.equal(await guest.write(0, Buffer.from('back')), 4, how);
    const again = openSync(source.path('a.img'), 'r');
    t.equal(readRecord(again), null, 'no record is left');
    closeSync(again);
    guest.close();
  }
});

t.test('both sides are flushed before the mirror and before the fence', async (t) => {
  const { source, target } = await pair(t);
  const guest = source.guest('a.img');
  const { id } = await source.start(['a.img'], target.address);
  await source.untilState(id, 'mirroring');
  const syncs = (): number => target.frames.filter(({ body }) => body === 'sync').length;
  t.equal(syncs(), 1);
  const synced = new Promise<void>((resolve) => {
    target.onFrame = ({ body }) => {
      if (body === 'sync') resolve();
      else if (body === 'cutoverOffer') target.send({ cutoverTaken: {} });
    };
  });
  target.holds = ({ body }) => body === 'sync';
  const asked = source.replica.cutover(id);
  await synced;
  t.equal(await guest.write(0, Buffer.from('not held')), 8, 'while the target flushes');
  target.release();
  await asked;
  t.equal(syncs(), 3);
  guest.close();
});

t.test('G1: a write that comes within the fence is held, and performed when the cutover fails', async (t) => {
  const { source, target } = await pair(t);
  const guest = source.guest('a.img');
  const { id } = await source.start(['a.img'], target.address);
  await source.untilState(id, 'mirroring');
  let syncs = 0;
  const fenced = new Promise<void>((resolve) => {
    target.holds = ({ body }) => {
      // The first is the flush ahead of the fence.
      if (body !== 'sync' || ++syncs < 2) return false;
      resolve();
      return true;
    };
  });
  const asked = t.rejects(source.replica.cutover(id), { code: 'UNAVAILABLE' });
  await fenced;
  const written = guest.write(0, Buffer.from('held'));
  // Handed over after the write and not held: the write has arrived when it is answered.
  t.equal(await guest.fsync(), 0);
  t.not(source.content('a.img').subarray(0, 4).toString(), 'held');
  target.close();
  await asked;
  t.equal(await written, 4);
  t.equal(source.content('a.img').subarray(0, 4).toString(), 'held');
  await source.replica.cancel(id);
  guest.close();
});

t.test('G1: a target whose disk hangs is given up, its guests are answered', async (t) => {
  const { source, target } = await pair(t);
  const guest = source.guest('a.img');
  const { id } = await source.start(['a.img'], target.address);
  await source.untilState(id, 'mirroring');
  target.holds = ({ body }) => body === 'data';
  const began = performance.now();
  const lost = source.untilState(id, 'interrupted');
  t.equal(await guest.write(0, Buffer.from('on')), 2);
  t.ok(performance.now() - began < 13_000);
  t.match((await lost).error?.message, /acknowledged nothing for 10 s/);
  await source.replica.cancel(id);
  guest.close();
});

t.test('a failed change past the end of what can be tracked does not end the migration', async (t) => {
  const { source, target } = await pair(t);
  const guest = source.guest('a.img');
  target.holds = ({ body }) => body === 'data';
  const { id } = await source.start(['a.img'], target.address);
  const far = 2 ** 53 - MiB;
  t.ok((await guest.truncate(-1)) < 0);
  t.ok((await guest.fallocate(0, far, 64 * KiB)) < 0);
  t.ok((await guest.write(far, Buffer.from('x'))) < 0);
  target.release();
  await source.untilState(id, 'mirroring', 'failed');
  t.equal((await source.replica.get(id)).state, 'mirroring');
  await source.replica.cancel(id);
  guest.close();
});

t.test('a comparison ends with the mirror, and cancel waits until nothing is read', async (t) => {
  for (const end of ['pause', 'cancel'] as const) {
    const { source, target } = await pair(t);
    const { id } = await source.start(['a.img'], target.address);
    await source.untilState(id, 'mirroring');
    const asked = new Promise<void>((resolve) => {
      target.onFrame = (frame) => {
        if (frame.body !== 'digestRequest') return;
        resolve();
        if (end === 'pause') setImmediate(() => target.send({ digestReply: { requestSeq: frame.seq } }));
      };
    });
    const verifying = t.rejects(source.replica.verify(id), { code: 'FAILED_PRECONDITION' });
    await asked;
    await source.replica[end](id);
    await verifying;
    if (end === 'pause') await source.replica.cancel(id);
  }
});
