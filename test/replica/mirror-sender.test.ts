import t from 'tap';
import { KiB } from '../../src/leaves/units.js';
import { ExtentLocks } from '../../src/replica/extent-locks.js';
import { BufferPool } from '../../src/replica/source/buffer-pool.js';
import { MirrorSender } from '../../src/replica/source/mirror-sender.js';
import type { Change, Settled } from '../../src/replica/source/ports.js';
import { Window } from '../../src/replica/source/window.js';

const LENGTH = 64 * KiB;
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** A target that acknowledges when told to, and an image whose bytes are `content`. */
const setUp = (windowBytes: number) => {
  const sent: { change: Change & { kind: 'data' }; settled: Settled }[] = [];
  const image = { content: 1, size: 1024 * LENGTH, reads: 0 };
  const waiting: { grant: () => void; signal: AbortSignal }[] = [];
  const limit = { on: false };
  const sender = new MirrorSender({
    image: 0,
    port: {
      size: () => image.size,
      nextData: () => null,
      segments: () => [],
      read: async (into, offset) => {
        image.reads++;
        const count = Math.max(0, Math.min(into.length, image.size - offset));
        into.fill(image.content, 0, count);
        return count;
      },
    },
    wire: {
      open: true,
      send: (change, settled) => {
        if (change.kind === 'data') sent.push({ change, settled });
      },
    },
    locks: new ExtentLocks(),
    buffers: new BufferPool(),
    counters: { sent: () => {}, acked: () => {} },
    takeNet: (_amount, { signal }) =>
      limit.on
        ? new Promise((resolve, reject) => {
            waiting.push({ grant: resolve, signal });
            signal.addEventListener('abort', () => reject(new Error('aborted')));
          })
        : undefined,
    window: new Window(() => windowBytes),
  });
  return { sender, sent, image, waiting, limit };
};

t.test('what the target does not keep up with is not kept in memory', async (t) => {
  const { sender, sent, image } = setUp(2 * LENGTH);
  const outcomes: string[] = [];
  for (let i = 0; i < 100; i++)
    sender.send(i * LENGTH, Buffer.alloc(LENGTH, 7), (outcome) => void outcomes.push(outcome));
  await turn();
  t.equal(sent.length, 2, 'as much as the window');
  t.equal(image.reads, 0);
  for (let acked = 0; acked < 100; acked++) {
    t.ok(sent.length - acked <= 2, 'never more on its way');
    sent[acked]!.settled('acked');
    await turn();
  }
  t.same(outcomes, Array(100).fill('acked'));
  t.same(
    sent.map(({ change }) => change.offset),
    Array.from({ length: 100 }, (_, i) => i * LENGTH),
    'in order',
  );
});

t.test('what waited is sent as the image is by then', async (t) => {
  const { sender, sent, image, waiting, limit } = setUp(100 * LENGTH);
  limit.on = true;
  sender.send(0, Buffer.alloc(LENGTH, 7), () => {});
  image.content = 8;
  limit.on = false;
  sender.send(0, Buffer.alloc(LENGTH, 8), () => {});
  waiting[0]!.grant();
  await turn();
  t.same(
    sent.map(({ change }) => [...new Set(change.payload)]),
    [[8], [8]],
  );
});

t.test('of what was cut off meanwhile only what is left is sent', async (t) => {
  const { sender, sent, image, waiting, limit } = setUp(2 * LENGTH);
  limit.on = true;
  const outcomes: string[] = [];
  sender.send(0, Buffer.alloc(LENGTH, 7), (outcome) => void outcomes.push(outcome));
  sender.send(LENGTH, Buffer.alloc(LENGTH, 7), (outcome) => void outcomes.push(outcome));
  image.size = 1000;
  for (const { grant } of waiting) grant();
  await turn();
  t.same(outcomes, ['acked'], 'nothing of the second is left');
  t.same(
    sent.map(({ change }) => change.payload.length),
    [1000],
  );
  sent[0]!.settled('acked');
  limit.on = false;
  for (let i = 0; i < 2; i++)
    t.equal(
      sender.send(0, Buffer.alloc(LENGTH), () => {}),
      false,
      'the window is whole again',
    );
});

t.test('nothing waits behind a fence, and what is given up is lost', async (t) => {
  const { sender, sent, waiting, limit } = setUp(LENGTH);
  limit.on = true;
  const outcomes: string[] = [];
  for (let i = 0; i < 10; i++)
    sender.send(i * LENGTH, Buffer.alloc(LENGTH), (outcome) => void outcomes.push(outcome));
  t.ok(sender.waits(9 * LENGTH, 1));
  sender.hurry(0, 5 * LENGTH);
  await sender.sent(new AbortController().signal, 0, 5 * LENGTH);
  t.equal(sent.length, 5, 'whatever the limit and the window');
  sender.giveUp();
  t.same(outcomes, Array(5).fill('lost'));
  t.ok(waiting.every(({ signal }) => signal.aborted));
  t.notOk(sender.waits());
  await sender.sent(new AbortController().signal);
  for (const { settled } of sent) settled('acked');
  limit.on = false;
  t.equal(
    sender.send(0, Buffer.alloc(LENGTH), () => {}),
    false,
    'the window is whole again',
  );
});
