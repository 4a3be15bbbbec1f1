/** Writes that are sent and made by whoever gets them, and answered by whoever is second (G1, G2). */
import { once } from 'node:events';
import { setImmediate as immediate } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import fc from 'fast-check';
import t from 'tap';
import type { BackingCalls } from '../../src/fs/backing-calls.js';
import type { DirtyBitmap } from '../../src/fs/dirty-bitmap.js';
import { alignedBytes } from '../../src/fs/kernel/aligned-memory.js';
import { TRANSFER_BYTES_MAX } from '../../src/fs/kernel/protocol.js';
import { LaneWriter } from '../../src/fs/lane-writer.js';
import { close, setSendBuffer } from '../../src/fs/libc.js';
import {
  LANE_BYTES_MAX,
  LANE_SEND_BUFFER_MIN,
  MirrorLane,
  STREAM_PARTICIPANT,
} from '../../src/fs/mirror-lane.js';
import type { WrittenBlocks } from '../../src/fs/written-blocks.js';
import { RECORD_HEAD_BYTES, RECORD_PAYLOAD_BYTES_MAX, RecordHead } from '../../src/leaves/stream-record.js';
import { KiB, MiB } from '../../src/leaves/units.js';
import type { LaneLoad } from '../support/lane-load-thread.js';
import { socketPair } from '../support/socket-pair.js';

const PARTICIPANTS = 4;
const SLOTS = [5, 6];
const BLOCK = 4 * KiB;
const FUSE_FD = 77;
const ENTRIES = 2048;
/** Where the lane counts what was begun and what was settled; the counts wrap at 2^31. */
const TAIL_WORD = 32;
const HEAD_WORD = 48;

interface Write {
  readonly number: number;
  readonly participant: number;
  readonly slot: number;
  readonly offset: number;
  readonly length: number;
  readonly entry: number;
  readonly sequence: number;
  making: boolean;
  outcome: 'unknown' | 'acked' | 'lost';
  result: number;
  answers: number;
  marked: boolean;
}

type Step =
  | { readonly do: 'begin'; who: number; slot: number; block: number; blocks: number }
  | { readonly do: 'made'; who: number; how: 'whole' | 'short' | 'error' }
  | { readonly do: 'settle'; percent: number }
  | { readonly do: 'lose' }
  | { readonly do: 'close' };

const who = fc.nat(PARTICIPANTS - 1);
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      do: fc.constant('begin' as const),
      who,
      slot: fc.nat(1),
      block: fc.nat(12),
      blocks: fc.integer({ min: 1, max: 4 }),
    }),
  },
  {
    weight: 8,
    arbitrary: fc.record({
      do: fc.constant('made' as const),
      who,
      how: fc.constantFrom('whole', 'whole', 'whole', 'short', 'error'),
    }),
  },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('settle' as const), percent: fc.nat(100) }) },
  { weight: 1, arbitrary: fc.constant({ do: 'close' as const }) },
  { weight: 1, arbitrary: fc.constant({ do: 'lose' as const }) },
);

/** What a lane must do, in plain words; throws where it does something else. */
class Model {
  readonly lane = new MirrorLane();
  readonly writes: Write[] = [];
  closed = false;

  run(what: Step): void {
    switch (what.do) {
      case 'begin':
        this.#begin(what.who, SLOTS[what.slot]!, what.block * BLOCK, what.blocks * BLOCK);
        return;
      case 'made':
        this.#made(what.who, what.how);
        return;
      case 'settle': {
        const open = this.writes.filter(({ outcome }) => outcome === 'unknown');
        this.settle(open.slice(0, Math.ceil((open.length * what.percent) / 100)), 'acked');
        return;
      }
      case 'close':
        this.lane.close();
        this.closed = true;
        return;
      case 'lose':
        // As a stream that breaks: nothing is sent any more, and the rest is lost.
        this.run({ do: 'close' });
        this.settle(
          this.writes.filter(({ outcome }) => outcome === 'unknown'),
          'lost',
        );
        return;
    }
  }

  /** Everything is made and settled. */
  end(): void {
    for (let participant = 0; participant < PARTICIPANTS; participant++) this.#made(participant, 'whole');
    this.settle(
      this.writes.filter(({ outcome }) => outcome === 'unknown'),
      'acked',
    );
    for (const { number, answers } of this.writes)
      check(answers === 1, `${number} answered ${answers} times`);
    check(this.lane.underWay === 0, 'something is under way');
  }

  settle(of: readonly Write[], outcome: 'acked' | 'lost'): void {
    const upTo = of.at(-1)?.sequence ?? 0;
    for (const write of of) write.outcome = outcome;
    const expected = of.filter(({ making }) => !making).map(({ number }) => number);
    const answered: number[] = [];
    this.lane.settle(
      outcome === 'lost' ? Number.MAX_SAFE_INTEGER : upTo,
      outcome === 'lost',
      (slot) => ({
        // In the order of the writes, and each is answered before the next is marked.
        mark: (offset, length) => {
          const of = (each: Write): boolean => each.slot === slot && each.answers === 0 && !each.making;
          const first = this.writes.find(
            (each) => of(each) && each.offset === offset && each.length === length,
          );
          check(first !== undefined, 'something else is marked');
          first!.marked = true;
        },
      }),
      (fuseFd, number, high, result) => {
        check(fuseFd === FUSE_FD && high === number + 1, 'the answer goes elsewhere');
        this.#answered(this.writes[number]!, result);
        answered.push(number);
      },
    );
    check(answered.join() === expected.join(), `answered ${answered}, expected ${expected}`);
  }

  #begin(participant: number, slot: number, offset: number, length: number): void {
    if (this.#makingOf(participant)) return;
    const number = this.writes.length;
    const entry = this.lane.begin(participant, slot, offset, length, FUSE_FD, number, number + 1);
    const overlaps = this.writes.some(
      (other) =>
        other.making &&
        other.slot === slot &&
        other.offset < offset + length &&
        offset < other.offset + other.length,
    );
    check(entry >= 0 === (!this.closed && !overlaps), `begun: ${entry}, closed: ${this.closed}, ${overlaps}`);
    if (entry < 0) return;
    const sequence = this.lane.sequenceOf(entry);
    check(sequence > (this.writes.at(-1)?.sequence ?? 0), 'the order of the records');
    this.writes.push({
      number,
      participant,
      slot,
      offset,
      length,
      entry,
      sequence,
      making: true,
      outcome: 'unknown',
      result: 0,
      answers: 0,
      marked: false,
    });
  }

  #made(participant: number, how: 'whole' | 'short' | 'error'): void {
    const write = this.#makingOf(participant);
    if (!write) return;
    write.making = false;
    write.result = how === 'whole' ? write.length : how === 'short' ? write.length - 1 : -5;
    const mark = (offset: number, length: number): void => {
      check(offset === write.offset && length === write.length, 'something else is marked');
      write.marked = true;
    };
    const second = this.lane.made(participant, write.entry, write.result, { mark });
    check(second === (write.outcome !== 'unknown'), 'who answers');
    if (second) this.#answered(write, write.result);
  }

  #answered(write: Write, result: number): void {
    write.answers++;
    check(result === write.result, 'the result');
    const differs = write.outcome === 'lost' || write.result !== write.length;
    check(write.marked === differs, `write ${write.number} is marked: ${write.marked}, not ${differs}`);
  }

  #makingOf(participant: number): Write | undefined {
    return this.writes.find((write) => write.making && write.participant === participant);
  }
}

const check = (truth: boolean, what: string): void => {
  if (!truth) throw new Error(what);
};

t.test('property: each write is answered once, marked before it where the sides differ', async (t) => {
  let overlapped = 0;
  let lost = 0;
  fc.assert(
    fc.property(fc.array(step, { minLength: 20, maxLength: 200 }), (steps) => {
      const model = new Model();
      for (const what of steps) {
        const before = model.writes.length;
        model.run(what);
        if (what.do === 'begin' && !model.closed && model.writes.length === before) overlapped++;
      }
      model.end();
      lost += model.writes.filter(({ outcome }) => outcome === 'lost').length;
    }),
    { numRuns: 500 },
  );
  t.ok(overlapped > 0 && lost > 0, 'writes overlapped, and were lost');
});

/** Without a network: begins, makes and settles one write. */
const writeOnce = (lane: MirrorLane, number: number, length: number): boolean => {
  const entry = lane.begin(0, 1, 0, length, FUSE_FD, number, 0);
  if (entry < 0) return false;
  let answers = 0;
  if (lane.made(0, entry, length, { mark: () => {} })) answers++;
  lane.settle(
    lane.sequenceOf(entry),
    false,
    () => ({ mark: () => {} }),
    (_fd, low) => {
      if (low === number) answers++;
    },
  );
  return answers === 1;
};

t.test('entries are used again and again, past 2^31 writes', async (t) => {
  const lane = new MirrorLane();
  const words = new Int32Array(lane.buffer);
  const start = 2 ** 31 - 3 * ENTRIES - 17;
  words[TAIL_WORD] = start;
  words[HEAD_WORD] = start;
  t.equal(lane.acknowledged, start, 'the counts are where this test thinks');
  t.equal(lane.underWay, 0);
  let failed = 0;
  for (let i = 0; i < 6 * ENTRIES; i++) if (!writeOnce(lane, i, BLOCK)) failed++;
  t.equal(failed, 0);
  t.equal(lane.underWay, 0);
  t.equal(lane.acknowledged, 3 * ENTRIES - 17, 'the count has begun anew');
});

t.test('no more writes are under way than there are entries, also where the counts wrap', async (t) => {
  const lane = new MirrorLane();
  lane.window = LANE_BYTES_MAX;
  const words = new Int32Array(lane.buffer);
  words[TAIL_WORD] = words[HEAD_WORD] = 2 ** 31 - 100;
  const begin = (number: number): boolean => {
    const entry = lane.begin(0, 1, number * 512, 512, FUSE_FD, number, 0);
    if (entry >= 0) t.notOk(lane.made(0, entry, 512, { mark: () => {} }));
    return entry >= 0;
  };
  for (let i = 0; i < ENTRIES; i++) if (!begin(i)) return t.fail(`write ${i} was refused`);
  t.equal(lane.underWay, ENTRIES);
  t.notOk(begin(ENTRIES), 'one more has to go another way');
  const answered: number[] = [];
  const marks = () => ({ mark: () => {} });
  lane.settle(Number.MAX_SAFE_INTEGER, false, marks, (_fd, low) => answered.push(low));
  t.same(
    answered,
    Array.from({ length: ENTRIES }, (_, i) => i),
    'in their order',
  );
  t.ok(begin(ENTRIES), 'and then it may');
});

t.test('an entry whose write is still being made is not used again', async (t) => {
  const lane = new MirrorLane();
  const slow = lane.begin(1, 1, MiB, BLOCK, FUSE_FD, 9999, 0);
  lane.settle(
    lane.sequenceOf(slow),
    false,
    () => ({ mark: () => {} }),
    () => t.fail('it is not made'),
  );
  for (let i = 1; i < ENTRIES; i++) if (!writeOnce(lane, i, BLOCK)) return t.fail(`write ${i}`);
  t.notOk(writeOnce(lane, ENTRIES, BLOCK), 'the next would be its entry');
  t.ok(lane.made(1, slow, BLOCK, { mark: () => {} }), 'made at last, and answered by who made it');
  t.ok(writeOnce(lane, ENTRIES, BLOCK));
});

t.test('so much may be under way as the window says, and a single write always', async (t) => {
  const lane = new MirrorLane();
  const window = MiB;
  lane.window = window;
  const none = () => ({ mark: () => {} });
  const begin = (offset: number, length: number): boolean => {
    const entry = lane.begin(0, 1, offset, length, FUSE_FD, 0, 0);
    if (entry >= 0) lane.made(0, entry, length, { mark: () => {} });
    return entry >= 0;
  };
  for (let round = 0; round < 3; round++) {
    t.ok(begin(0, window - BLOCK));
    t.notOk(begin(window, BLOCK + 1));
    t.ok(begin(window, BLOCK));
    t.notOk(begin(2 * window, 1));
    lane.settle(Number.MAX_SAFE_INTEGER, false, none, () => {});
    t.ok(begin(0, 2 * window), 'bytes under way are back at 0');
    t.notOk(begin(3 * window, 1));
    lane.settle(Number.MAX_SAFE_INTEGER, false, none, () => {});
  }
  t.equal(lane.bytesSent, 9 * window);
  t.equal(lane.bytesAcked, 9 * window);
});

t.test('whatever the writes are, what may be under way fits into the buffer of the socket', async (t) => {
  const LENGTHS = [1, 512, BLOCK, 64 * KiB, TRANSFER_BYTES_MAX];
  for (const sendBuffer of [LANE_SEND_BUFFER_MIN, 8 * LANE_SEND_BUFFER_MIN])
    for (const length of LENGTHS) {
      const [here, there] = await socketPair();
      const lane = new MirrorLane();
      t.equal(setSendBuffer(here, sendBuffer / 2), sendBuffer);
      t.ok(lane.fit(sendBuffer));
      lane.window = LANE_BYTES_MAX;
      const record = alignedBytes(RECORD_HEAD_BYTES + RECORD_PAYLOAD_BYTES_MAX, RECORD_HEAD_BYTES);
      const head = new RecordHead(record.buffer, record.byteOffset);
      const request = { fuseFd: FUSE_FD, words: new Uint32Array(4), head, record };
      const none = () => {};
      const writer = new LaneWriter(
        { buffer: lane.buffer, fd: here, key: null, image: 0 },
        0,
        { pwrite: () => length } as unknown as BackingCalls,
        { mark: none } as unknown as DirtyBitmap,
        { note: none } as unknown as WrittenBlocks,
      );
      const write = (i: number) => writer.write(1, -1, record, length, i * MiB, request, false);
      let writes = 0;
      while (write(writes) !== undefined) writes++;
      // Who waits too long for a network that takes nothing closes the lane.
      t.notOk(lane.closed, `${writes} writes of ${length} bytes have left`);
      const most = sendBuffer / BLOCK;
      t.ok(writes <= most && (writes === most || writes * length > sendBuffer / 8), 'neither many nor few');
      for (const fd of [here, there]) close(fd);
    }
  t.notOk(new MirrorLane().fit(LANE_SEND_BUFFER_MIN - 1), 'too small a buffer is none');
});

t.test("small writes that never pause do not keep out a large one of the stream's thread", async (t) => {
  const lane = new MirrorLane();
  const window = MiB;
  lane.window = window;
  const begin = (participant: number, offset: number, length: number): number => {
    const entry = lane.begin(participant, 1, offset, length, FUSE_FD, 0, 0);
    if (entry >= 0) lane.made(participant, entry, length, { mark: () => {} });
    return entry;
  };
  const settle = (sequence: number): void =>
    lane.settle(
      sequence,
      false,
      () => ({ mark: () => {} }),
      () => {},
    );
  const small: number[] = [];
  const fill = (): void => {
    for (let entry = begin(0, 0, BLOCK); entry >= 0; entry = begin(0, 0, BLOCK))
      small.push(lane.sequenceOf(entry));
  };
  for (let round = 0; round < 3; round++) {
    fill();
    settle(small.shift()!);
    const large = begin(STREAM_PARTICIPANT, window, 256 * KiB);
    t.ok(large >= 0, 'it goes beyond what may be under way');
    const sequence = lane.sequenceOf(large);
    t.equal(begin(STREAM_PARTICIPANT, 2 * window, 256 * KiB), -1, 'but not twice');
    t.equal(begin(0, 0, BLOCK), -1, 'and nobody else does');
    settle(small.splice(0).at(-1)!);
    fill();
    t.equal(begin(STREAM_PARTICIPANT, 2 * window, 256 * KiB), -1, 'not before it is settled');
    settle(sequence);
  }
});

t.test('threads: each write is answered once, and overlapping ones are never made together', async (t) => {
  const lane = new MirrorLane();
  const [THREADS, WRITES, BLOCKS] = [3, 2_000, 64];
  const int32 = (length: number): SharedArrayBuffer => new SharedArrayBuffer(length * 4);
  const shared = { making: int32(BLOCKS), clashes: int32(1), answers: int32(THREADS * WRITES) };
  const answers = new Int32Array(shared.answers);
  let running = THREADS;
  const threads = Array.from({ length: THREADS }, (_, participant) => {
    const workerData: LaneLoad = { kind: 'lane', lane: lane.buffer, participant, writes: WRITES, ...shared };
    const url = new URL('../support/lane-load-thread.js', import.meta.url);
    return once(new Worker(url, { workerData }), 'exit').then(() => running--);
  });
  const settle = (): void =>
    lane.settle(
      Number.MAX_SAFE_INTEGER,
      false,
      () => ({ mark: () => {} }),
      (_fd, number) => void Atomics.add(answers, number, 1),
    );
  while (running > 0) {
    settle();
    await immediate();
  }
  await Promise.all(threads);
  settle();
  t.equal(answers.filter((times) => times !== 1).length, 0, 'each once');
  t.equal(new Int32Array(shared.clashes)[0], 0, 'none together');
  t.equal(lane.underWay, 0);
});
