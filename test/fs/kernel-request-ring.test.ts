import fc from 'fast-check';
import t from 'tap';
import { RequestRing, RING_RECORD_BYTES_MAX } from '../../src/fs/kernel/request-ring.js';

/** Bytes that differ from record to record, at both ends and in the middle. */
const record = (length: number, seed: number): Uint8Array =>
  new Uint8Array(length).fill(seed + 1).fill(seed + 101, length >> 1);

t.test('records come out whole and in order, whatever their sizes and however full it gets', async (t) => {
  let fullSeen = 0;
  const step = fc.oneof(
    { weight: 3, arbitrary: fc.record({ push: fc.integer({ min: 100_000, max: 250_000 }) }) },
    { weight: 1, arbitrary: fc.record({ push: fc.integer({ min: 1, max: 100 }) }) },
    { weight: 2, arbitrary: fc.constant({ push: 0 }) },
  );
  fc.assert(
    fc.property(fc.array(step, { minLength: 20, maxLength: 60 }), (steps) => {
      const ring = new RequestRing();
      const expected: Uint8Array[] = [];
      const take = () => {
        const at = ring.peek();
        const oldest = expected.shift();
        if (!oldest) return at === -1;
        const same = Buffer.compare(ring.bytes.subarray(at, at + oldest.length), oldest) === 0;
        ring.shift();
        return same && at % 8 === 0;
      };
      for (const [seed, { push }] of steps.entries()) {
        if (push === 0) {
          if (!take()) return false;
          continue;
        }
        const put = record(push, seed);
        if (ring.push(put, put.length)) expected.push(put);
        else {
          fullSeen++;
          if (expected.length === 0) return false; // an empty ring takes any record
        }
      }
      while (expected.length > 0) if (!take()) return false;
      return ring.peek() === -1;
    }),
    { numRuns: 30, verbose: 1 },
  );
  t.ok(fullSeen > 0, 'it was full at times');
});

t.test('positions wrap after 4 GiB without losing a record', async (t) => {
  const ring = new RequestRing();
  new Int32Array(ring.buffer)[0] = -8; // the head, eight bytes before the wrap
  new Int32Array(ring.buffer)[16] = -8; // the tail
  for (let i = 0; i < 20; i++) {
    const put = record(100_000, i);
    t.ok(ring.push(put, put.length));
    const at = ring.peek();
    t.equal(Buffer.compare(ring.bytes.subarray(at, at + put.length), put), 0);
    ring.shift();
  }
  t.equal(ring.peek(), -1);
});

t.test('a record over the limit is a bug', async (t) => {
  t.throws(() =>
    new RequestRing().push(new Uint8Array(RING_RECORD_BYTES_MAX + 1), RING_RECORD_BYTES_MAX + 1),
  );
});
