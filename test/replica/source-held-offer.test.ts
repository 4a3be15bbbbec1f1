/** What guests at the source meet from the offer of the images to the target's answer: they wait. */
import { closeSync, openSync } from 'node:fs';
import t from 'tap';
import { readRecord } from '../../src/fs/image-record.js';
import { FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE } from '../../src/fs/libc.js';
import { KiB, MiB } from '../../src/leaves/units.js';
import { OFFER_HOLD_MAX, Offer } from '../../src/replica/source/offer.js';
import { migratefs } from '../../src/replica/wire/generated/data.js';
import { ManualClock } from '../support/manual-clock.js';
import { scratchDir } from '../support/scratch.js';
import { FakeTarget } from './source-fake-target.js';
import type { Guest } from './source-world.js';
import { makeImage, TestHost } from './source-world.js';

const SIZE = 2 * MiB;
const SHORTER = 1 * MiB;
const EROFS = -30;
const GIVEN_UP = { code: 'CANCELLED', message: 'given up' };

/** In sync, asked to cut over, and the target has been offered the image: it says nothing. */
const offered = async (t: Parameters<typeof TestHost.open>[0]) => {
  const source = await TestHost.open(t, scratchDir(t, 'source'));
  const target = await FakeTarget.open(t);
  makeImage(source, 'a.img', SIZE);
  const guest = source.guest('a.img');
  t.teardown(() => guest.close());
  const offer = new Promise<void>((resolve) => {
    target.onFrame = ({ body }) => {
      if (body === 'cutoverOffer') resolve();
    };
  });
  const { id } = await source.start(['a.img'], target.address);
  await source.untilState(id, 'mirroring');
  const asked = source.replica.cutover(id).then(
    () => 'taken',
    (error: { code: string }) => error.code,
  );
  await offer;
  const role = (): string | undefined => {
    const fd = openSync(source.path('a.img'), 'r');
    try {
      return readRecord(fd)?.role;
    } finally {
      closeSync(fd);
    }
  };
  return { source, target, guest, id, asked, role };
};

/** Changes of every kind that have reached the source, and how many of them are answered. */
const changes = async (guest: Guest) => {
  let answered = 0;
  const count = <T>(result: T): T => {
    answered++;
    return result;
  };
  const results = Promise.all([
    guest.write(0, Buffer.from('held')).then(count),
    guest.fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 64 * KiB, 64 * KiB).then(count),
    guest.truncate(SHORTER).then(count),
  ]);
  // Handed over after them and not held: they have arrived when it is answered.
  await guest.fsync();
  return { results, answered: () => answered };
};

for (const how of ['frame', 'resume'] as const)
  t.test(`G4: a target that gave up (${how}): what came after the offer is performed`, async (t) => {
    const { source, target, guest, id, asked, role } = await offered(t);
    t.equal(role(), 'fenced', 'on disk before the offer');
    const before = source.content('a.img');
    const { results, answered } = await changes(guest);
    t.equal(answered(), 0, 'held');
    t.ok(source.content('a.img').equals(before), 'and not performed');
    target.onHello = ({ purpose }) =>
      purpose === migratefs.data.Hello.Purpose.RESUME ? { reply: { failure: GIVEN_UP } } : {};
    if (how === 'frame') target.send({ failure: GIVEN_UP });
    else target.close();
    t.strictSame(await results, [4, 0, 0]);
    t.equal(await asked, how === 'frame' ? 'CANCELLED' : 'UNAVAILABLE');
    await source.untilState(id, 'cancelled');
    before.write('held');
    before.fill(0, 64 * KiB, 128 * KiB);
    t.ok(source.content('a.img').equals(before.subarray(0, SHORTER)), 'performed in order');
    t.equal(role(), undefined, 'no record is left');
    t.equal(await guest.write(0, Buffer.from('on')), 2);
  });

for (const how of ['frame', 'resume'] as const)
  t.test(
    `G3: a target that has taken the images (${how}): what came after the offer is refused`,
    async (t) => {
      const { source, target, guest, id, role } = await offered(t);
      const before = source.content('a.img');
      const { results, answered } = await changes(guest);
      t.equal(answered(), 0, 'held');
      target.onHello = ({ purpose }) =>
        purpose === migratefs.data.Hello.Purpose.RESUME ? { reply: { taken: true } } : {};
      if (how === 'frame') target.send({ cutoverTaken: {} });
      else target.close();
      t.strictSame(await results, [EROFS, EROFS, EROFS]);
      await source.untilState(id, 'completed');
      t.ok(source.content('a.img').equals(before), 'not performed');
      t.equal(role(), 'fenced');
      t.equal(await guest.write(0, Buffer.from('late')), EROFS);
    },
  );

t.test('G3: neither a cancellation here nor a lost target lets go of what is held', async (t) => {
  const { source, target, guest, id } = await offered(t);
  const before = source.content('a.img');
  const { results, answered } = await changes(guest);
  await t.rejects(source.replica.cancel(id), { code: 'FAILED_PRECONDITION', message: /no return/ });
  await t.rejects(source.replica.pause(id), { code: 'FAILED_PRECONDITION' });
  await source.replica.setLimits(id, { diskLimit: MiB as never });
  let resumed = 0;
  target.onHello = () => {
    resumed++;
    return {};
  };
  const offeredAgain = new Promise<void>((resolve) => {
    target.onFrame = ({ body }) => {
      if (body === 'cutoverOffer') resolve();
    };
  });
  target.close();
  await offeredAgain;
  t.equal(resumed, 1);
  t.equal((await source.replica.get(id)).state, 'cutover');
  await guest.fsync();
  t.equal(answered(), 0, 'held');
  t.ok(source.content('a.img').equals(before), 'and not performed');
  target.send({ cutoverTaken: {} });
  t.strictSame(await results, [EROFS, EROFS, EROFS]);
});

t.test('G3: a daemon that stops while it holds refuses, and stays fenced', async (t) => {
  const { source, guest, role } = await offered(t);
  const before = source.content('a.img');
  const { results, answered } = await changes(guest);
  t.equal(answered(), 0, 'held');
  await source.replica.shutdown();
  t.strictSame(await results, [EROFS, EROFS, EROFS]);
  t.ok(source.content('a.img').equals(before), 'not performed');
  t.equal(role(), 'fenced');
});

/** An offer of no images, which notes what it has the group do. */
const bareOffer = async () => {
  const clock = new ManualClock();
  const did: string[] = [];
  const note = (what: string) => (): void => void did.push(what);
  const offer = new Offer({
    environment: { clock } as never,
    group: {
      images: [],
      clean: true,
      assertTracked: () => undefined,
      fence: note('hold'),
      seal: note('refuse'),
    } as never,
    wire: {
      inFlight: { drained: () => Promise.resolve() },
      closeStream: () => undefined,
      tell: note('offer'),
    } as never,
    status: { transitionTo: () => undefined } as never,
    requests: {} as never,
    verification: { stop: () => undefined } as never,
    id: 'a',
    target: 'b',
    log: note('log'),
  });
  await offer.make(new AbortController().signal);
  return { clock, did, offer };
};

t.test('G3: an offer that is not answered in time: refused from then on', async (t) => {
  const { clock, did, offer } = await bareOffer();
  await clock.advance(OFFER_HOLD_MAX - 1);
  t.strictSame(did, ['hold', 'offer']);
  await clock.advance(1);
  t.strictSame(did, ['hold', 'offer', 'log', 'refuse']);
  t.ok(offer.made, 'and still offered');
  t.ok(offer.accept());
  t.strictSame(did.slice(4), [], 'once');
});

t.test('the wait ends with the answer', async (t) => {
  for (const answer of ['accept', 'takeBack'] as const) {
    const { clock, did, offer } = await bareOffer();
    offer[answer]('so');
    t.equal(clock.pending, 0, answer);
    t.equal(did.includes('refuse'), answer === 'accept', answer);
  }
});
