/** Records of a stream: layout, limits, and that nothing but what was sealed is ever given out. */
import assert from 'node:assert/strict';
import { isDeepStrictEqual } from 'node:util';
import fc from 'fast-check';
import t from 'tap';
import { MigrateFsError } from '../../src/leaves/errors.js';
import { RecordReader } from '../../src/leaves/record-reader.js';
import { RECORD_KEY_BYTES, RecordSeal } from '../../src/leaves/record-seal.js';
import type { RecordKind, StreamRecord } from '../../src/leaves/stream-record.js';
import {
  hasPayload,
  RECORD_BYTES_MAX,
  RECORD_HEAD_BYTES,
  RECORD_KIND,
  RECORD_PAYLOAD_BYTES_MAX,
  RecordHead,
} from '../../src/leaves/stream-record.js';

interface Sent {
  readonly kind: RecordKind;
  readonly image: number;
  readonly offset: number;
  readonly length: number;
  readonly seq: number;
  readonly payload: Uint8Array;
}

const MOST = Number.MAX_SAFE_INTEGER;
const KEY = Uint8Array.from({ length: RECORD_KEY_BYTES }, (_, i) => i + 1);
const OTHER_KEY = KEY.toReversed();
const SEALINGS = [
  { name: 'plain', key: null },
  { name: 'sealed', key: KEY },
];

const number = fc.oneof(fc.nat({ max: MOST }), fc.constantFrom(0, 2 ** 32 - 1, 2 ** 32, MOST));
const anyRecord: fc.Arbitrary<Sent> = fc
  .record({
    kind: fc.constantFrom(...Object.values(RECORD_KIND)),
    image: fc.nat(0xffff),
    offset: number,
    length: number,
    seq: number,
    bytes: fc.uint8Array({ maxLength: 600 }),
  })
  .map(({ bytes, ...record }) => {
    const payload = hasPayload(record.kind) ? bytes : new Uint8Array(0);
    return { ...record, payload, length: hasPayload(record.kind) ? bytes.length : record.length };
  });
const anySealing = fc.constantFrom(...SEALINGS);

/** Head and payload in one piece of memory, not sealed. */
const written = ({ kind, image, offset, length, seq, payload }: Sent): Uint8Array => {
  const record = new Uint8Array(RECORD_HEAD_BYTES + payload.length);
  record.set(payload, RECORD_HEAD_BYTES);
  new RecordHead(record.buffer, 0).put(kind, image, offset, length, seq);
  return record;
};

const sealedAll = (records: readonly Uint8Array[], key: Uint8Array | null): Buffer[] => {
  const seal = new RecordSeal(key);
  return records.map((record, counter) => Buffer.from(seal.seal(record, counter)));
};

const copyOf = ({ payload, ...record }: StreamRecord): Sent => ({
  ...record,
  payload: Uint8Array.from(payload),
});

/** Receives `stream` in pieces that end at `cuts` (each 0 to 1 of its length). */
const read = (reader: RecordReader, stream: Uint8Array, cuts: readonly number[] = []): Sent[] => {
  const found: Sent[] = [];
  const ends = [...cuts.map((cut) => Math.floor(cut * stream.length)), stream.length].sort((a, b) => a - b);
  let at = 0;
  for (const end of ends) {
    while (at < end) {
      const space = reader.space();
      const piece = stream.subarray(at, Math.min(end, at + space.length));
      space.set(piece);
      reader.received(piece.length);
      at += piece.length;
      for (let record = reader.next(); record; record = reader.next()) found.push(copyOf(record));
    }
  }
  return found;
};

const codedError = (error: unknown): boolean =>
  error instanceof MigrateFsError && /^(INVALID_ARGUMENT|DATA_LOSS)$/.test(error.code);

const example: Sent = {
  kind: RECORD_KIND.mirror,
  image: 0x0102,
  offset: 0x1_2345_6789,
  length: 3,
  seq: 0x1f_ffff_ffff_ffff,
  payload: Uint8Array.of(7, 8, 9),
};

t.test('records survive any cutting of the byte stream', async () => {
  fc.assert(
    fc.property(
      anySealing,
      fc.array(anyRecord, { maxLength: 12 }),
      fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 40 }),
      ({ key }, sent, cuts) => {
        const reader = new RecordReader(key, RECORD_BYTES_MAX);
        const found = read(reader, Buffer.concat(sealedAll(sent.map(written), key)), cuts);
        return isDeepStrictEqual(found, sent) && !reader.midRecord;
      },
    ),
    { numRuns: 300 },
  );
});

t.test('the longest records pass through the least memory, however they are cut', async (t) => {
  const payload = Uint8Array.from({ length: RECORD_PAYLOAD_BYTES_MAX }, (_, i) => i * 7);
  const longest = { ...example, length: payload.length, payload };
  const sent = [longest, example, longest, example, longest];
  for (const { name, key } of SEALINGS)
    for (const cuts of [[], [0.1, 0.3331, 0.5, 0.501, 0.66, 0.9]]) {
      const reader = new RecordReader(key, RECORD_BYTES_MAX);
      const found = read(reader, Buffer.concat(sealedAll(sent.map(written), key)), cuts);
      t.equal(found.length, sent.length, name);
      t.ok(found.every((record, i) => Buffer.compare(record.payload, sent[i]!.payload) === 0));
    }
});

t.test('the layout of a record is fixed', async (t) => {
  const body = '02000201 00000000 8967452301000000 0300000000000000 ffffffffffff1f00 070809'.replaceAll(
    ' ',
    '',
  );
  const [plain] = sealedAll([written(example)], null);
  t.equal(plain!.toString('hex', 8), body);
  t.equal(plain!.readUInt32LE(0), 35);
  t.equal(plain!.readUInt32LE(4), 0xbff89a08, 'CRC-32 of the body');
  const [sealed] = sealedAll([written(example)], KEY);
  t.equal(sealed!.readUInt32LE(0), 35 + 16);
  t.equal(sealed!.readUInt32LE(4), 0);
  t.equal(sealed!.length, 8 + 35 + 16);
});

t.test('a head is written over whatever its memory held', async (t) => {
  const hole = { ...example, kind: RECORD_KIND.hole, payload: new Uint8Array(0) };
  const used = new Uint8Array(RECORD_HEAD_BYTES).fill(0xff);
  new RecordHead(used.buffer, 0).put(hole.kind, hole.image, hole.offset, hole.length, hole.seq);
  t.same(used, written(hole));
});

t.test('a plain record is sent from where it lies; a sealed one is a copy', async (t) => {
  const record = written(example);
  t.equal(new RecordSeal(null).seal(record, 0), record);
  const before = Uint8Array.from(record);
  t.not(new RecordSeal(KEY).seal(record, 0), record);
  t.same(record, before);
});

t.test('records in shared memory are sealed alike', async (t) => {
  for (const { name, key } of SEALINGS) {
    const shared = new Uint8Array(new SharedArrayBuffer(RECORD_HEAD_BYTES + 500), 0, RECORD_HEAD_BYTES + 300);
    const sent = { ...example, length: 300, payload: new Uint8Array(300).fill(5) };
    shared.set(sent.payload, RECORD_HEAD_BYTES);
    t.equal(
      new RecordHead(shared.buffer, 0).put(sent.kind, sent.image, sent.offset, 300, sent.seq),
      shared.length,
    );
    t.same(sealedAll([shared], key), sealedAll([written(sent)], key), name);
  }
});

t.test('the reader gives out one object, and plain payload without a copy', async (t) => {
  const reader = new RecordReader(null);
  const space = reader.space();
  const stream = Buffer.concat(sealedAll([written(example), written({ ...example, seq: 1 })], null));
  space.set(stream);
  reader.received(stream.length);
  const first = reader.next();
  t.equal(first?.payload.buffer, space.buffer);
  t.equal(reader.next(), first);
  t.equal(first?.seq, 1);
  t.equal(reader.next(), undefined);
});

t.test('numbers are exact to 2^53 - 1, and refused beyond', async (t) => {
  const head = new RecordHead(new ArrayBuffer(RECORD_HEAD_BYTES), 0);
  const { hole, data } = RECORD_KIND;
  for (const bad of [MOST + 1, -1, 0.5, Number.NaN, Number.POSITIVE_INFINITY]) {
    t.throws(() => head.put(hole, 0, bad, 0, 0), { code: 'INVALID_ARGUMENT' }, `offset ${bad}`);
    t.throws(() => head.put(hole, 0, 0, bad, 0), { code: 'INVALID_ARGUMENT' }, `length ${bad}`);
    t.throws(() => head.put(data, 0, 0, bad, 0), { code: 'INVALID_ARGUMENT' }, `payload ${bad}`);
    t.throws(() => head.put(hole, 0, 0, 0, bad), { code: 'INVALID_ARGUMENT' }, `seq ${bad}`);
  }
  for (const bad of [0x10000, -1, 0.5])
    t.throws(() => head.put(hole, bad, 0, 0, 0), { code: 'INVALID_ARGUMENT' }, `image ${bad}`);
  t.throws(() => head.put(data, 0, 0, RECORD_PAYLOAD_BYTES_MAX + 1, 0), { code: 'INVALID_ARGUMENT' });
  const most = { ...example, kind: hole, offset: MOST, length: MOST, seq: MOST, payload: new Uint8Array(0) };
  for (const { key } of SEALINGS) {
    t.match(read(new RecordReader(key), sealedAll([written(most)], key)[0]!), [most]);
    for (const at of [16, 24, 32]) {
      const record = written(most);
      record[at + 6] = 0x20;
      t.throws(() => read(new RecordReader(key), sealedAll([record], key)[0]!), { code: 'INVALID_ARGUMENT' });
    }
  }
});

t.test('bodies shorter or longer than any are refused from the prefix alone', async (t) => {
  for (const [key, lengths] of [
    [null, [0, 31, 32 + RECORD_PAYLOAD_BYTES_MAX + 1, 0xffffffff]],
    [KEY, [0, 32, 47, 48 + RECORD_PAYLOAD_BYTES_MAX + 1, 0xffffffff]],
  ] as const)
    for (const length of lengths) {
      const prefix = Buffer.alloc(8);
      prefix.writeUInt32LE(length, 0);
      t.throws(() => read(new RecordReader(key), prefix), { code: 'INVALID_ARGUMENT' }, `${length}`);
    }
});

t.test(
  'unknown kinds and lengths that do not fit the payload are refused, rightly sealed or not',
  async (t) => {
    const forged = (change: (view: DataView) => void, of = example): Uint8Array => {
      const record = written(of);
      change(new DataView(record.buffer));
      return record;
    };
    const hole = { ...example, kind: RECORD_KIND.hole, payload: new Uint8Array(0) };
    const cases: [string, Uint8Array][] = [
      ['kind 0', forged((view) => view.setUint16(8, 0, true))],
      ['kind 8', forged((view) => view.setUint16(8, 8, true), hole)],
      ['reserved', forged((view) => view.setUint32(12, 1, true))],
      ['length too small', forged((view) => view.setUint32(24, 2, true))],
      ['length too large', forged((view) => view.setUint32(28, 1, true))],
      ['a hole with a payload', forged((view) => view.setUint16(8, RECORD_KIND.hole, true))],
      ['data without its payload', forged((view) => view.setUint16(8, RECORD_KIND.data, true), hole)],
    ];
    for (const { name, key } of SEALINGS)
      for (const [what, record] of cases)
        t.throws(
          () => read(new RecordReader(key), sealedAll([record], key)[0]!),
          { code: 'INVALID_ARGUMENT' },
          `${name}: ${what}`,
        );
  },
);

/** More than the longest record, so that one whose length has grown becomes whole. */
const BEHIND = new Uint8Array(RECORD_BYTES_MAX);

t.test('a flipped bit anywhere is detected, whatever comes behind', async (t) => {
  for (const { name, key } of SEALINGS) {
    const [whole] = sealedAll([written(example)], key);
    for (let bit = 0; bit < whole!.length * 8; bit++) {
      const bad = Buffer.concat([whole!, BEHIND]);
      bad[bit >> 3]! ^= 1 << (bit & 7);
      const code = bit < 32 ? /INVALID_ARGUMENT|DATA_LOSS/ : 'DATA_LOSS';
      t.throws(() => read(new RecordReader(key), bad), { code }, `${name}: bit ${bit}`);
    }
  }
});

t.test('property: of changed bytes nothing is given out, and the error stays', async () => {
  fc.assert(
    fc.property(
      anySealing,
      fc.array(anyRecord, { minLength: 1, maxLength: 4 }),
      fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true }),
      fc.integer({ min: 1, max: 255 }),
      ({ key }, sent, where, change) => {
        const stream = Buffer.concat([...sealedAll(sent.map(written), key), BEHIND]);
        const length = stream.length - BEHIND.length;
        const at = Math.floor(where * length);
        stream[at]! ^= change;
        const reader = new RecordReader(key, RECORD_BYTES_MAX * 2);
        const found: Sent[] = [];
        const readAll = (): void => {
          for (let record = reader.next(); record; record = reader.next()) found.push(copyOf(record));
        };
        reader.space().set(stream);
        reader.received(stream.length);
        assert.throws(readAll, codedError);
        assert.throws(readAll, codedError);
        return found.length < sent.length && isDeepStrictEqual(found, sent.slice(0, found.length));
      },
    ),
    { numRuns: 200 },
  );
});

t.test('property: of a stream cut short only whole records are given out', async () => {
  fc.assert(
    fc.property(
      anySealing,
      fc.array(anyRecord, { minLength: 1, maxLength: 4 }),
      fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true }),
      ({ key }, sent, where) => {
        const records = sealedAll(sent.map(written), key);
        const stream = Buffer.concat(records);
        const length = Math.floor(where * stream.length);
        let whole = 0;
        let left = length;
        while (left >= records[whole]!.length) left -= records[whole++]!.length;
        const reader = new RecordReader(key);
        const found = read(reader, stream.subarray(0, length));
        return isDeepStrictEqual(found, sent.slice(0, whole)) && reader.midRecord === left > 0;
      },
    ),
  );
});

t.test('sealed records replayed, reordered, left out or of another key are DATA_LOSS', async (t) => {
  const sent = [1, 2, 3].map((seq) => written({ ...example, seq }));
  const [one, two, three] = sealedAll(sent, KEY) as [Buffer, Buffer, Buffer];
  const cases: [string, Buffer[], number][] = [
    ['replayed', [one, one], 1],
    ['replayed later', [one, two, one], 2],
    ['reordered', [one, three, two], 1],
    ['the first left out', [two, three], 0],
    ['one in the middle left out', [one, three], 1],
    ['of the other direction', sealedAll(sent, OTHER_KEY), 0],
    ['with another salt', sealedAll(sent, KEY.with(35, 0)), 0],
  ];
  for (const [what, stream, good] of cases) {
    const reader = new RecordReader(KEY);
    for (const record of stream.slice(0, good)) t.equal(read(reader, record).length, 1, what);
    t.throws(() => read(reader, stream[good]!), { code: 'DATA_LOSS' }, what);
  }
});

t.test('a plain record is nothing to who expects sealed ones, and the other way round', async (t) => {
  for (const [key, readerKey] of [
    [null, KEY],
    [KEY, null],
  ]) {
    const [record] = sealedAll([written({ ...example, length: 99, payload: new Uint8Array(99) })], key!);
    t.throws(() => read(new RecordReader(readerKey!), record!), { code: 'DATA_LOSS' });
  }
});

t.test('no nonce is used twice under one key', async (t) => {
  const seal = new RecordSeal(KEY);
  const record = written(example);
  const [first, second] = [seal.seal(record, 0), seal.seal(record, 1)];
  t.notSame(first, second, 'the same record looks different each time');
  t.throws(() => seal.seal(record, 1), { code: 'ERR_ASSERTION' });
  t.throws(() => seal.seal(record, 0), { code: 'ERR_ASSERTION' });
  seal.seal(record, 2 ** 32);
  const beyond = seal.seal(record, 2 ** 32 + 1);
  t.notSame(beyond, second, 'the upper half of the counter counts');
});

t.test('random bytes never do anything but throw a coded error or wait for more', async () => {
  fc.assert(
    fc.property(anySealing, fc.uint8Array({ minLength: 1, maxLength: 4000 }), ({ key }, noise) => {
      try {
        return read(new RecordReader(key), noise).length === 0;
      } catch (error) {
        return codedError(error);
      }
    }),
    { numRuns: 500 },
  );
});
