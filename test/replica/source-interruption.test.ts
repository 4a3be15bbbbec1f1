import { createHash } from 'node:crypto';
import { closeSync, openSync, writeSync } from 'node:fs';
import t from 'tap';
import { parseHostPort } from '../../src/leaves/host-port.js';
import { KiB, MiB, millis } from '../../src/leaves/units.js';
import { migratefs } from '../../src/replica/wire/generated/data.js';
import { CutProxy } from '../support/cut-proxy.js';
import { scratchDir } from '../support/scratch.js';
import { waitFor } from '../support/wait-for.js';
import { FakeTarget } from './source-fake-target.js';
import { makeImage, TestHost, writeOn } from './source-world.js';

const SIZE = 24 * MiB;
/** As it is compared, and as it is copied. */
const EXTENT = 512 * KiB;
const BLOCK = 64 * KiB;
const EROFS = -30;
const peerTimeout = millis(800);

const through = async (t: Parameters<typeof TestHost.open>[0]) => {
  const source = await TestHost.open(t, scratchDir(t, 'source'), { peerTimeout });
  const target = await TestHost.open(t, scratchDir(t, 'target'), { peerTimeout });
  const proxy = await CutProxy.start(t, target.replica.dataAddress);
  makeImage(source, 'a.img', SIZE);
  return { source, target, proxy };
};

t.test('G1 G2: cut in the bulk copy, it goes on', async (t) => {
  const { source, target, proxy } = await through(t);
  const guest = source.guest('a.img');
  const writer = writeOn(guest, SIZE, 11);
  const { id } = await source.start(['a.img'], proxy.address, { netLimit: (10 * MiB) as never });
  await source.until(id, ({ bytesSent }) => bytesSent > 4 * MiB);
  proxy.cut();
  const broken = await source.untilState(id, 'interrupted');
  t.ok(broken.error);
  proxy.heal();
  await source.untilState(id, 'bulk-copy');
  await source.replica.setLimits(id, { netLimit: Number.POSITIVE_INFINITY as never });
  await source.untilState(id, 'mirroring');
  await writer.stop();
  await source.replica.cutover(id);
  t.ok(source.content('a.img').equals(target.content('a.img')));
  guest.close();
});

t.test(
  'G1 G2: silence while mirroring: guests are answered, then it resyncs only what differs',
  async (t) => {
    const { source, target, proxy } = await through(t);
    const guest = source.guest('a.img');
    const { id } = await source.start(['a.img'], proxy.address);
    await source.untilState(id, 'mirroring');
    const writer = writeOn(guest, SIZE, 12);
    const { bytesSent } = await source.replica.get(id);
    proxy.silence();
    const waiting = guest.write(5, Buffer.from('waits for the peer timeout'));
    await source.untilState(id, 'interrupted');
    t.equal(await waiting, 26, 'answered although the peer is lost');
    proxy.heal();
    await source.untilState(id, 'mirroring');
    t.ok((await source.replica.get(id)).bytesSent - bytesSent < SIZE, 'not all of it again');
    await writer.stop();
    await source.replica.cutover(id);
    t.ok(source.content('a.img').equals(target.content('a.img')));
    guest.close();
  },
);

t.test('G2: a target that has forgotten everything is compared by digests', async (t) => {
  const source = await TestHost.open(t, scratchDir(t, 'source'), { peerTimeout });
  const folder = scratchDir(t, 'target');
  const first = await TestHost.open(t, folder, { peerTimeout });
  const { port } = parseHostPort(first.replica.dataAddress);
  makeImage(source, 'a.img', SIZE);
  const guest = source.guest('a.img');
  const { id, bytesTotal } = await source.start(['a.img'], first.replica.dataAddress);
  await source.untilState(id, 'mirroring');
  await first.replica.shutdown();
  await source.untilState(id, 'interrupted');
  t.equal(await guest.write(3 * MiB, Buffer.from('while it was away')), 17);
  t.equal(await guest.fallocate(3, 8 * MiB, MiB), 0);
  const second = await TestHost.open(t, folder, { peerTimeout, port });
  const synced = await source.untilState(id, 'mirroring');
  t.ok(synced.bytesSent - bytesTotal < 2 * MiB, `only what differs: ${synced.bytesSent - bytesTotal}`);
  await source.replica.cutover(id);
  t.ok(source.content('a.img').equals(second.content('a.img')));
  guest.close();
});

t.test('G2: a comparison that was cut off is made after the next resume', async (t) => {
  const source = await TestHost.open(t, scratchDir(t, 'source'), { peerTimeout });
  const folder = scratchDir(t, 'target');
  const first = await TestHost.open(t, folder, { peerTimeout });
  const { port } = parseHostPort(first.replica.dataAddress);
  const proxy = await CutProxy.start(t, first.replica.dataAddress);
  makeImage(source, 'a.img', SIZE);
  const { id } = await source.start(['a.img'], proxy.address);
  await source.untilState(id, 'mirroring');
  await first.replica.shutdown();
  await source.untilState(id, 'interrupted');
  const replica = openSync(first.path('a.img'), 'r+');
  writeSync(replica, Buffer.from('lost in a power cut'), 0, 19, 20 * MiB);
  closeSync(replica);
  const second = await TestHost.open(t, folder, { peerTimeout, port });
  await source.untilState(id, 'dirty-resend');
  proxy.cut();
  await source.untilState(id, 'interrupted');
  proxy.heal();
  await source.untilState(id, 'mirroring');
  await source.replica.cutover(id);
  t.ok(source.content('a.img').equals(second.content('a.img')));
});

for (const [what, instance, compares] of [
  ['the same run', 'first', false],
  ['another run, which remembers since a resumption whose answer was lost', 'second', true],
] as const)
  t.test(`G2: resumed by ${what} of the target's daemon`, async (t) => {
    const source = await TestHost.open(t, scratchDir(t, 'source'), { peerTimeout });
    const target = await FakeTarget.open(t);
    target.onHello = ({ purpose }) => ({
      reply: {
        targetInstance: purpose === migratefs.data.Hello.Purpose.RESUME ? instance : 'first',
        remembers: true,
      },
    });
    makeImage(source, 'a.img', MiB);
    const { id } = await source.start(['a.img'], target.address);
    await source.untilState(id, 'mirroring');
    let asked = 0;
    target.onFrame = ({ body }) => {
      if (body === 'digestRequest') asked++;
      if (asked > 0) target.close();
    };
    target.close();
    await source.untilState(id, 'interrupted');
    if (compares) await waitFor(() => asked > 0, 'what it has is compared');
    else await source.untilState(id, 'mirroring');
    t.equal(asked > 0, compares);
    await source.replica.cancel(id);
  });

for (const how of ['break', 'pause', 'another run'] as const)
  t.test(`G2: a comparison that was broken off (${how})`, async (t) => {
    const source = await TestHost.open(t, scratchDir(t, 'source'), { peerTimeout });
    const target = await FakeTarget.open(t);
    const content = makeImage(source, 'a.img', SIZE);
    const answers = 12;
    /** Offsets asked for before and since, those of them that were answered, and what has come since. */
    const asked = { before: [] as number[], since: [] as number[] };
    const same = new Set<number>();
    const sent = new Set<number>();
    let broken = false;
    let pause = (): void => {};
    target.onHello = ({ purpose }) => {
      const again = purpose === migratefs.data.Hello.Purpose.RESUME;
      if (again) broken = true;
      const targetInstance = again && how === 'another run' ? 'second' : 'first';
      return { reply: { targetInstance, ...(again ? { remembers: true } : { adopted: true }) } };
    };
    target.onFrame = (frame, bytes) => {
      if (frame.body === 'data') for (let at = 0; at < bytes; at += BLOCK) sent.add(frame.data.offset + at);
      if (frame.body !== 'digestRequest') return;
      const { offset, length } = frame.digestRequest;
      asked[broken ? 'since' : 'before'].push(offset);
      const answered = asked.before.length <= answers || broken || how === 'pause';
      if (asked.before.length === answers && !broken) pause();
      if (!answered) return target.close();
      same.add(offset);
      const sha256 = createHash('sha256')
        .update(content.subarray(offset, offset + length))
        .digest();
      target.send({ digestReply: { requestSeq: frame.seq, sha256 } });
    };
    const paused = new Promise<void>((resolve) => {
      pause = resolve;
    });
    const { id } = await source.start(['a.img'], target.address);
    if (how === 'pause') {
      await paused;
      await source.replica.pause(id);
      // What was asked for has its answers by now.
      await source.untilState(id, 'paused');
      broken = true;
      await source.replica.resume(id);
    }
    await source.untilState(id, 'mirroring');
    const first = Math.min(...asked.since);
    if (how === 'another run') t.equal(first, 0, 'begins anew');
    else t.ok(first > asked.before[answers - 1]!, `goes on at ${first}`);
    for (let at = 0; at < SIZE; at += BLOCK)
      if (!sent.has(at) && !same.has(at - (at % EXTENT))) return t.fail(`${at} is neither the same nor sent`);
    await source.replica.cancel(id);
  });

t.test('G3: cut while it cuts over, the images have one owner in the end', async (t) => {
  const { source, target, proxy } = await through(t);
  const guest = source.guest('a.img');
  const { id } = await source.start(['a.img'], proxy.address);
  await source.untilState(id, 'mirroring');
  const asked = source.replica.cutover(id).then(
    () => 'completed',
    () => 'lost',
  );
  proxy.cut();
  t.equal(await asked, 'lost');
  proxy.heal();
  const after = await source.untilState(id, 'mirroring', 'completed');
  if (after.state === 'mirroring') await source.replica.cutover(id);
  t.equal(await guest.write(0, Buffer.from('x')), EROFS);
  t.ok(source.content('a.img').equals(target.content('a.img')));
  guest.close();
});

t.test('G3: cut when the target has taken the images but cannot say so', async (t) => {
  const { source, target, proxy } = await through(t);
  const guest = source.guest('a.img');
  const { id } = await source.start(['a.img'], proxy.address);
  await source.untilState(id, 'mirroring');
  target.replica.watch(({ state }) => {
    if (state === 'completed') proxy.cut();
  });
  const asked = t.rejects(source.replica.cutover(id), { code: 'UNAVAILABLE', message: /stay fenced/ });
  await source.untilState(id, 'interrupted');
  await asked;
  let answered = false;
  const held = guest.write(0, Buffer.from('x')).finally(() => {
    answered = true;
  });
  t.equal(await guest.fsync(), 0, 'handed over after the write, and not held');
  t.notOk(answered, 'while nobody knows');
  await t.rejects(source.replica.cancel(id), { code: 'FAILED_PRECONDITION', message: /no return/ });
  proxy.heal();
  await source.untilState(id, 'completed');
  t.equal(await held, EROFS);
  t.equal(await guest.write(0, Buffer.from('x')), EROFS);
  t.ok(source.content('a.img').equals(target.content('a.img')));
  guest.close();
});

t.test(
  'G3: images that were offered to a target that is lost for good are taken back, when an operator says so',
  async (t) => {
    const source = await TestHost.open(t, scratchDir(t, 'source'), { peerTimeout });
    const target = await FakeTarget.open(t);
    let back = false;
    // As one that was cancelled there and started again.
    target.onHello = ({ purpose }) => ({
      reply:
        purpose === migratefs.data.Hello.Purpose.START
          ? {}
          : { failure: { code: back ? 'NOT_FOUND' : 'UNAVAILABLE', message: 'no such migration' } },
    });
    makeImage(source, 'a.img', MiB);
    const guest = source.guest('a.img');
    const { id } = await source.start(['a.img'], target.address);
    await source.untilState(id, 'mirroring');
    target.onFrame = ({ body }) => {
      if (body === 'cutoverOffer') target.close();
    };
    await t.rejects(source.replica.cutover(id), { code: 'UNAVAILABLE' });
    await source.untilState(id, 'interrupted');
    back = true;
    await t.rejects(source.replica.cancel(id), { code: 'FAILED_PRECONDITION', message: /--take-back/ });
    const held = guest.write(0, Buffer.from('held'));
    t.equal((await source.replica.cancel(id, true)).state, 'cancelled');
    t.equal(await held, 4);
    t.equal(await guest.write(0, Buffer.from('again')), 5);
    t.match(await source.replica.describeImages(['a.img']), [{ role: 'owner' }]);
    guest.close();
  },
);

t.test('a write load that outruns a throttled network still gets in sync', async (t) => {
  const { source, target, proxy } = await through(t);
  const guest = source.guest('a.img');
  const writer = writeOn(guest, SIZE, 13);
  const { id } = await source.start(['a.img'], proxy.address, { netLimit: (12 * MiB) as never });
  await source.untilState(id, 'mirroring');
  t.ok((await writer.stop()) > 0);
  await source.replica.cutover(id);
  t.ok(source.content('a.img').equals(target.content('a.img')));
  guest.close();
});

t.test('pause and resume, from the bulk copy and from the mirror', async (t) => {
  const { source, target, proxy } = await through(t);
  const guest = source.guest('a.img');
  const { id } = await source.start(['a.img'], proxy.address, { netLimit: (8 * MiB) as never });
  t.equal((await source.replica.pause(id)).state, 'paused');
  await t.rejects(source.replica.cutover(id), { code: 'FAILED_PRECONDITION' });
  t.equal(await guest.write(9, Buffer.from('tracked')), 7);
  await source.replica.setLimits(id, { netLimit: Number.POSITIVE_INFINITY as never });
  await source.replica.resume(id);
  await source.untilState(id, 'mirroring');
  t.equal((await source.replica.pause(id)).state, 'paused');
  t.equal(await guest.write(5 * MiB, Buffer.from('tracked again')), 13);
  await source.replica.resume(id);
  await source.untilState(id, 'mirroring');
  await source.replica.cutover(id);
  t.ok(source.content('a.img').equals(target.content('a.img')));
  guest.close();
});

t.test('a pause that comes before a resume has taken effect is a pause', async (t) => {
  const { source, target, proxy } = await through(t);
  const { id } = await source.start(['a.img'], proxy.address, { netLimit: (8 * MiB) as never });
  t.equal((await source.replica.pause(id)).state, 'paused');
  const resumed = source.replica.resume(id);
  t.equal((await source.replica.pause(id)).state, 'paused');
  await resumed;
  let looks = 0;
  t.equal((await source.until(id, () => ++looks > 2)).state, 'paused', 'it stays so');
  await source.replica.setLimits(id, { netLimit: Number.POSITIVE_INFINITY as never });
  await source.replica.resume(id);
  await source.untilState(id, 'mirroring');
  await source.replica.cutover(id);
  t.ok(source.content('a.img').equals(target.content('a.img')));
});

t.test('a disk limit holds writes back, and none once it is removed', async (t) => {
  const { source, proxy } = await through(t);
  const guest = source.guest('a.img');
  const { id } = await source.start(['a.img'], proxy.address, {
    netLimit: (1 * MiB) as never,
    diskLimit: (1 * MiB) as never,
  });
  const began = performance.now();
  for (let i = 0; i < 8; i++) await guest.write(i * 128 * 1024, Buffer.alloc(128 * 1024, i + 1));
  const took = performance.now() - began;
  t.ok(took > 600, `1 MiB at 1 MiB/s took ${Math.round(took)} ms`);
  await source.replica.setLimits(id, { diskLimit: Number.POSITIVE_INFINITY as never });
  const free = performance.now();
  for (let i = 0; i < 8; i++) await guest.write(i * 128 * 1024, Buffer.alloc(128 * 1024, i + 1));
  t.ok(performance.now() - free < took / 2);
  await source.replica.cancel(id);
  guest.close();
});
