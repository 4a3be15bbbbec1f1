import fc from 'fast-check';
import t from 'tap';
import type { ExtentLock, LockMode } from '../../src/replica/extent-locks.js';
import { ExtentLocks, TO_THE_END } from '../../src/replica/extent-locks.js';

const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

t.test('what nothing conflicts with is granted in the call', (t) => {
  const locks = new ExtentLocks();
  const first = locks.acquire(0, 100, 'exclusive');
  t.notOk(first instanceof Promise);
  t.notOk(locks.acquire(100, 50, 'exclusive') instanceof Promise, 'neighbours do not overlap');
  t.notOk(locks.acquire(200, 50, 'shared') instanceof Promise);
  t.notOk(locks.acquire(220, 50, 'shared') instanceof Promise, 'shared locks overlap');
  t.equal(locks.tryAcquire(99, 1, 'shared'), undefined);
  t.equal(locks.size, 4, 'a refused attempt leaves nothing behind');
  locks.release(first as ExtentLock);
  t.ok(locks.tryAcquire(99, 1, 'shared'));
  t.end();
});

t.test('who waits is served in the order of asking, shared requests do not overtake', async (t) => {
  const locks = new ExtentLocks();
  const served: string[] = [];
  const ask = (name: string, offset: number, length: number, mode: LockMode): Promise<ExtentLock> =>
    Promise.resolve(locks.acquire(offset, length, mode)).then((lock) => {
      served.push(name);
      return lock;
    });
  const reader = await ask('reader', 0, 10, 'shared');
  const writer = ask('writer', 0, 10, 'exclusive');
  const late = ask('late reader', 5, 1, 'shared');
  const apart = ask('apart', 20, 1, 'exclusive');
  await settle();
  t.same(served, ['reader', 'apart']);
  locks.release(reader);
  const held = await writer;
  await settle();
  t.same(served, ['reader', 'apart', 'writer']);
  locks.release(held);
  locks.release(await late);
  locks.release(await apart);
  t.equal(locks.size, 0);
});

t.test('an aborted request leaves the queue, and those behind it go on', async (t) => {
  const locks = new ExtentLocks();
  const held = locks.acquire(0, 10, 'shared') as ExtentLock;
  const abort = new AbortController();
  const waiting = locks.acquire(0, TO_THE_END, 'exclusive', abort.signal) as Promise<ExtentLock>;
  const behind = locks.acquire(3, 1, 'shared') as Promise<ExtentLock>;
  const reason = new Error('cancelled');
  abort.abort(reason);
  await t.rejects(waiting, reason);
  locks.release(await behind);
  locks.release(held);
  t.equal(locks.size, 0);
  await t.rejects(
    Promise.all([locks.acquire(0, 1, 'exclusive'), locks.acquire(0, 1, 'exclusive', abort.signal)]),
    reason,
  );
});

t.test('passed waits for what was asked for before it, and nothing waits for it', async (t) => {
  const locks = new ExtentLocks();
  await locks.passed();
  const held = locks.acquire(0, 10, 'exclusive') as ExtentLock;
  const queued = locks.acquire(5, 10, 'shared') as Promise<ExtentLock>;
  let passed = false;
  const barrier = locks.passed().then(() => {
    passed = true;
  });
  const later = locks.acquire(100, 10, 'exclusive');
  t.notOk(later instanceof Promise, 'what is asked for later does not queue behind it');
  locks.release(held);
  const granted = await queued;
  await settle();
  t.equal(passed, false);
  locks.release(granted);
  await barrier;
  t.equal(locks.size, 1, 'the later one is still held');
});

t.test('releasing twice is a defect', (t) => {
  const locks = new ExtentLocks();
  const lock = locks.acquire(0, 1, 'shared') as ExtentLock;
  locks.release(lock);
  t.throws(() => locks.release(lock), /not held/);
  t.end();
});

interface Request {
  readonly offset: number;
  readonly length: number;
  readonly mode: LockMode;
}
const request: fc.Arbitrary<Request> = fc.record({
  offset: fc.nat(20),
  length: fc.integer({ min: 1, max: 8 }),
  mode: fc.constantFrom<LockMode>('shared', 'exclusive'),
});
const conflicts = (a: Request, b: Request): boolean =>
  (a.mode === 'exclusive' || b.mode === 'exclusive') &&
  a.offset < b.offset + b.length &&
  b.offset < a.offset + a.length;

t.test('held locks never conflict, conflicting ones are granted in order, and all are granted', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(request, { maxLength: 40 }),
      fc.infiniteStream(fc.nat()),
      async (wanted, choices) => {
        const locks = new ExtentLocks();
        const held = new Map<number, ExtentLock>();
        const granted = new Set<number>();
        const grant = (index: number, lock: ExtentLock): void => {
          for (const other of held.keys())
            if (conflicts(wanted[index]!, wanted[other]!)) throw new Error(`${index} while ${other} is held`);
          for (let earlier = 0; earlier < index; earlier++)
            if (!granted.has(earlier) && conflicts(wanted[index]!, wanted[earlier]!))
              throw new Error(`${index} overtook ${earlier}`);
          held.set(index, lock);
          granted.add(index);
        };
        const pending: Promise<void>[] = [];
        for (const [index, { offset, length, mode }] of wanted.entries()) {
          const lock = locks.acquire(offset, length, mode);
          if (lock instanceof Promise) pending.push(lock.then((later) => grant(index, later)));
          else grant(index, lock);
          if (choices.next().value! % 3 === 0) await releaseOne(locks, held, choices.next().value!);
        }
        while (held.size > 0) await releaseOne(locks, held, choices.next().value!);
        await Promise.all(pending);
        return granted.size === wanted.length && locks.size === 0;
      },
    ),
    { numRuns: 300 },
  );
});

const releaseOne = async (
  locks: ExtentLocks,
  held: Map<number, ExtentLock>,
  choice: number,
): Promise<void> => {
  const index = [...held.keys()][choice % Math.max(held.size, 1)];
  if (index === undefined) return;
  const lock = held.get(index)!;
  held.delete(index);
  locks.release(lock);
  await Promise.resolve();
  await Promise.resolve();
};
