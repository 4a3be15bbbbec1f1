/** A disk limit holds answers back, not changes. */
import t from 'tap';
import { DirtyBitmap } from '../../src/fs/dirty-bitmap.js';
import type { RoutedRequest } from '../../src/fs/participant.js';
import { systemClock } from '../../src/leaves/clock.js';
import { TokenBucket } from '../../src/leaves/token-bucket.js';
import { bytes, bytesPerSecond, KiB, UNLIMITED } from '../../src/leaves/units.js';
import { ExtentLocks } from '../../src/replica/extent-locks.js';
import { RoutedWriter } from '../../src/replica/source/routed-writer.js';

type Write = Extract<RoutedRequest, { op: 'write' }>;

const setUp = () => {
  const performed: number[] = [];
  const bucket = new TokenBucket(systemClock, bytesPerSecond(1));
  const bitmap = DirtyBitmap.allocate(bytes(256 * KiB), bytes(64 * KiB));
  const writer = new RoutedWriter({
    image: 0,
    calls: {
      pwrite: (_fd, _data, length, offset) => {
        performed.push(offset);
        return length;
      },
      fallocate: () => 0,
      ftruncate: () => 0,
      fsync: () => 0,
      fileSize: () => 256 * KiB,
    },
    bitmap,
    locks: new ExtentLocks(),
    wire: { open: false, send: (_change, settled) => settled('lost') },
    counters: { sent: () => {}, acked: () => {} },
    takeDisk: (amount, by) => bucket.take(amount, 'write', by),
    sender: { giveUp: () => {} } as never,
    syncBothSides: () => false,
    onDirtied: () => {},
    onWritten: () => {},
  });
  const answers: number[] = [];
  const write = (offset: number): Write => {
    const request: Write = {
      op: 'write',
      slot: 0,
      fd: 3,
      reply: { kind: 'port', id: 1 },
      offset,
      payload: Buffer.alloc(4 * KiB, 1),
    };
    writer.handle(request, (result) => void answers.push(result));
    return request;
  };
  // What the bucket has saved up is used, and more.
  write(0);
  answers.length = 0;
  performed.length = 0;
  t.teardown(() => bucket.setRate(UNLIMITED));
  return { writer, bitmap, bucket, answers, performed, write };
};

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

t.test('the change is made and marked at once, its payload is let go, its answer waits', async (t) => {
  const { bitmap, bucket, answers, performed, write } = setUp();
  write(0);
  write(0);
  write(0);
  write(0);
  const last = write(128 * KiB);
  await turn();
  t.same(performed, [0, 0, 0, 0, 128 * KiB]);
  t.ok(bitmap.allDirty(128 * KiB, 4 * KiB));
  t.ok(answers.length < 5, 'the last one waits');
  t.equal(last.payload.length, 0, 'what waits takes no memory');
  bucket.setRate(UNLIMITED);
  await turn();
  t.same(answers, [4096, 4096, 4096, 4096, 4096], 'in full, once the limit allows it');
});

t.test('nobody waits for a limit once the migration is over', async (t) => {
  for (const policy of ['plain', 'refuse'] as const) {
    const { writer, bucket, answers, write } = setUp();
    for (let i = 0; i < 6; i++) write(i * 4 * KiB);
    await turn();
    t.ok(bucket.waiting > 0);
    writer.policy = policy;
    await turn();
    t.same(answers, Array(6).fill(4096), policy);
    t.equal(bucket.waiting, 0, 'and nothing is taken of the limit for them');
  }
});

t.test('the answer of one caller can be let go', async (t) => {
  const { answers, write } = setUp();
  for (let i = 0; i < 5; i++) write(i * 4 * KiB);
  const killed = write(64 * KiB);
  await turn();
  const before = answers.length;
  killed.unhold!();
  await turn();
  t.equal(answers.length, before + 1);
});
