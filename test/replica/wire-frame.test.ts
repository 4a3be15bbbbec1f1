import fc from 'fast-check';
import t from 'tap';
import type { MigrateFsError } from '../../src/leaves/errors.js';
import type { Frame, FrameProperties } from '../../src/replica/wire/frame.js';
import {
  encodeFrame,
  FRAME_HEADER_BYTES_MAX,
  FRAME_PAYLOAD_BYTES_MAX,
  FRAME_PREFIX_BYTES,
} from '../../src/replica/wire/frame.js';
import { FrameReader } from '../../src/replica/wire/frame-reader.js';

interface Whole {
  readonly frame: Frame;
  readonly payload: Buffer;
}

/** Reads `stream` cut at `cuts` (each 0 to 1 of its length). */
const read = (stream: Buffer, cuts: readonly number[] = []): Whole[] => {
  const reader = new FrameReader();
  const found: Whole[] = [];
  const at = [0, ...cuts.map((cut) => Math.floor(cut * stream.length)), stream.length].sort((a, b) => a - b);
  for (let i = 1; i < at.length; i++)
    reader.push(Buffer.from(stream.subarray(at[i - 1], at[i])), (frame, payload) =>
      found.push({ frame, payload: Buffer.concat(payload as Buffer[]) }),
    );
  if (reader.midFrame) throw new Error('the stream does not end at a frame edge');
  return found;
};

const joined = (frame: FrameProperties, payload?: readonly Uint8Array[]): Buffer =>
  Buffer.concat(encodeFrame(frame, payload));

const offset = fc.nat({ max: Number.MAX_SAFE_INTEGER });
const anyPlainFrame: fc.Arbitrary<FrameProperties> = fc.oneof<fc.Arbitrary<FrameProperties>[]>(
  fc.record({ seq: offset, hole: fc.record({ image: fc.nat(7), offset, length: offset }) }),
  fc.record({ ack: fc.record({ seqs: fc.array(offset, { maxLength: 300 }) }) }),
  fc.record({ phase: fc.record({ state: fc.string(), bytesTotal: offset, bytesLeft: offset }) }),
  fc.record({ cutoverRequest: fc.constant({}) }),
);
interface Sent {
  readonly frame: FrameProperties;
  readonly payload: Uint8Array[];
}
const anyFrame: fc.Arbitrary<Sent> = fc.oneof<fc.Arbitrary<Sent>[]>(
  fc.record({
    frame: fc.record({ seq: offset, data: fc.record({ image: fc.nat(7), offset, mirror: fc.boolean() }) }),
    payload: fc.array(fc.uint8Array({ maxLength: 600 }), { maxLength: 4 }),
  }),
  fc.record({ frame: anyPlainFrame, payload: fc.constant([]) }),
);

t.test('frames survive any cutting of the byte stream', (t) => {
  fc.assert(
    fc.property(
      fc.array(anyFrame, { maxLength: 12 }),
      fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 40 }),
      (sent, cuts) => {
        const stream = Buffer.concat(sent.map(({ frame, payload }) => joined(frame, payload)));
        const found = read(stream, cuts);
        if (found.length !== sent.length) return false;
        return sent.every(({ frame, payload }, i) => {
          const got = found[i]!;
          const again = joined(got.frame as unknown as FrameProperties);
          return got.payload.equals(Buffer.concat(payload)) && again.equals(joined(frame));
        });
      },
    ),
    { numRuns: 300 },
  );
  t.end();
});

t.test('offsets are plain numbers, exact to 2^53 - 1, and refused beyond', (t) => {
  const most = Number.MAX_SAFE_INTEGER;
  for (const size of [0, 1, 127, 128, 2 ** 31, 2 ** 32, 2 ** 32 + 1, 2 ** 52 + 1, most]) {
    const { frame } = read(joined({ seq: size, hole: { offset: size, length: size } }))[0]!;
    t.match(frame, { seq: size, hole: { offset: size, length: size } });
  }
  const seqs = [most, 0, 300];
  t.match(read(joined({ ack: { seqs } }))[0]?.frame, { ack: { seqs } });
  t.throws(() => read(joined({ hole: { offset: 2 ** 53 } })), { code: 'INVALID_ARGUMENT' });
  t.throws(() => read(joined({ hole: { offset: 2 ** 63 } })), { code: 'INVALID_ARGUMENT' });
  t.end();
});

t.test('payload buffers are passed through, not copied', (t) => {
  const payload = [Buffer.alloc(4096, 1), Buffer.alloc(512, 2)];
  const buffers = encodeFrame({ seq: 1, data: { image: 0, offset: 0 } }, payload);
  t.equal(buffers[1], payload[0]);
  t.equal(buffers[2], payload[1]);
  t.end();
});

t.test('a flipped bit anywhere behind the lengths is DATA_LOSS', (t) => {
  const whole = joined({ seq: 9, data: { image: 1, offset: 4096 } }, [Buffer.alloc(100, 7)]);
  for (let at = 8; at < whole.length; at++) {
    const bad = Buffer.from(whole);
    bad[at]! ^= 1 << (at % 8);
    t.throws(() => read(bad), { code: 'DATA_LOSS' }, `byte ${at}`);
  }
  t.end();
});

t.test('lengths over the limits are refused from the prefix alone', (t) => {
  for (const [header, payload] of [
    [FRAME_HEADER_BYTES_MAX + 1, 0],
    [0xffffffff, 0],
    [0, 0],
    [8, FRAME_PAYLOAD_BYTES_MAX + 1],
    [8, 0xffffffff],
  ] as const) {
    const prefix = Buffer.alloc(FRAME_PREFIX_BYTES);
    prefix.writeUInt32LE(header, 0);
    prefix.writeUInt32LE(payload, 4);
    t.throws(
      () => new FrameReader().push(prefix, () => {}),
      { code: 'INVALID_ARGUMENT' },
      `${header}, ${payload}`,
    );
  }
  t.throws(() => encodeFrame({ data: {} }, [Buffer.alloc(FRAME_PAYLOAD_BYTES_MAX + 1)]), {
    code: 'INVALID_ARGUMENT',
  });
  t.throws(() => encodeFrame({ failure: { message: 'x'.repeat(FRAME_HEADER_BYTES_MAX) } }), {
    code: 'INVALID_ARGUMENT',
  });
  t.end();
});

t.test('headers that are no frame, of unknown kind, or with a stray payload are refused', (t) => {
  const unknownKind = joined({});
  unknownKind.writeUInt32LE(0, 0);
  t.throws(() => read(joined({ seq: 5 })), { code: 'INVALID_ARGUMENT', message: /unknown kind/ });
  t.throws(() => read(unknownKind), { code: 'INVALID_ARGUMENT' });
  t.throws(() => read(joined({ ping: {} }, [Buffer.alloc(1)])), {
    code: 'INVALID_ARGUMENT',
    message: /payload/,
  });
  t.end();
});

t.test('random bytes never do anything but throw a coded error or wait for more', (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 1, maxLength: 4000 }), (noise) => {
      try {
        new FrameReader().push(Buffer.from(noise), () => {});
        return true;
      } catch (error) {
        return ['DATA_LOSS', 'INVALID_ARGUMENT'].includes((error as MigrateFsError).code);
      }
    }),
    { numRuns: 500 },
  );
  t.end();
});
