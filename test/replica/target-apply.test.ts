import { createHash } from 'node:crypto';
import { statSync } from 'node:fs';
import fc from 'fast-check';
import t from 'tap';
import type { FrameProperties } from '../../src/replica/wire/frame.js';
import { allocatedBytes } from '../support/files.js';
import { ID, IMAGE, TargetWorld } from './target-world.js';

const MIB = 1024 * 1024;
const sha256 = (data: Uint8Array): string => createHash('sha256').update(data).digest('hex');

t.test('a replica is made with size, mode and record, and holds what the frames say', async (t) => {
  const world = await TargetWorld.start(t);
  const source = await world.started({ images: [{ ...IMAGE, name: 'vm/1/disk.img', size: 8 * MIB }] });
  const name = 'vm/1/disk.img';
  t.equal(statSync(world.path(name)).size, 8 * MIB);
  t.equal(statSync(world.path(name)).mode & 0o777, 0o640);
  t.match(world.record(name), { role: 'replica', migration: 'm-1', generation: 4, peer: '10.0.0.1:7071' });
  const model = Buffer.alloc(8 * MIB);
  const big = Buffer.alloc(MIB, 0xab);
  model.set(big, 3 * MIB);
  model.fill(0xcd, 100, 100 + 5000);
  model.fill(0, 3 * MIB + 4096, 3 * MIB + 4096 * 17);
  t.equal(await source.do({ data: { image: 0, offset: 3 * MIB } }, big), 'ok');
  t.equal(await source.do({ data: { image: 0, offset: 100, mirror: true } }, Buffer.alloc(5000, 0xcd)), 'ok');
  t.equal(await source.do({ hole: { image: 0, offset: 3 * MIB + 4096, length: 4096 * 16 } }), 'ok');
  t.ok(world.content(name).equals(model), 'bytes are those of the frames');
  t.ok(allocatedBytes(world.path(name)) < MIB, 'the hole and the rest of the image allocate nothing');
  t.equal(await source.do({ resize: { image: 0, size: 4 * MIB } }), 'ok');
  t.equal(statSync(world.path(name)).size, 4 * MIB);
  t.equal(await source.do({ hole: { image: 0, offset: 2 * MIB, length: 64 * MIB } }), 'ok');
  t.equal(statSync(world.path(name)).size, 4 * MIB, 'a hole past the end does not grow the image');
  t.equal(await source.do({ allocate: { image: 0, mode: 0, offset: 4 * MIB, length: MIB } }), 'ok');
  t.equal(statSync(world.path(name)).size, 5 * MIB, 'fallocate grows it');
  t.ok(allocatedBytes(world.path(name)) >= MIB);
  t.equal(await source.do({ sync: { image: 0 } }), 'ok');
  t.match(world.targets.get('m-1')?.snapshot(), {
    role: 'target',
    bytesSent: MIB + 5000,
    bytesMirrored: 5000,
    images: [{ name, size: 5 * MIB }],
  });
});

t.test('overlapping frames take effect in the order they were sent', async (t) => {
  const world = await TargetWorld.start(t);
  const source = await world.started();
  const block = 16 * 1024;
  const blocks = IMAGE.size / block;
  type Step = { kind: 'copy' | 'mirror' | 'hole' | 'resize'; at: number; length: number; value: number };
  const step: fc.Arbitrary<Step> = fc.record({
    // Copies are written asynchronously, mirrored writes at once: only the locks keep them in order.
    kind: fc.constantFrom('copy', 'copy', 'copy', 'mirror', 'mirror', 'mirror', 'hole', 'resize'),
    at: fc.nat(blocks - 9),
    length: fc.integer({ min: 1, max: 8 }),
    value: fc.integer({ min: 1, max: 255 }),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 20, maxLength: 80 }), async (steps) => {
      let model = Buffer.alloc(IMAGE.size);
      await source.do({ resize: { image: 0, size: 0 } });
      await source.do({ resize: { image: 0, size: IMAGE.size } });
      const seqs = steps.map(({ kind, at, length, value }) => {
        const offset = at * block;
        switch (kind) {
          case 'copy':
            model.fill(value, offset, offset + 8 * block);
            return source.send({ data: { image: 0, offset } }, Buffer.alloc(8 * block, value));
          case 'mirror':
            model.fill(value, offset + 512, offset + 512 + length * 512);
            return source.send(
              { data: { image: 0, offset: offset + 512, mirror: true } },
              Buffer.alloc(length * 512, value),
            );
          case 'hole':
            model.fill(0, offset, offset + length * block);
            return source.send({ hole: { image: 0, offset, length: length * block } });
          case 'resize': {
            const grown = Buffer.alloc(IMAGE.size);
            model.copy(grown, 0, 0, offset + 8 * block);
            model = grown;
            source.send({ resize: { image: 0, size: offset + 8 * block } });
            return source.send({ resize: { image: 0, size: IMAGE.size } });
          }
          default:
            return kind satisfies never;
        }
      });
      for (const seq of seqs) if ((await source.outcome(seq)) !== 'ok') return false;
      return world.content().equals(model);
    }),
    { numRuns: 25 },
  );
});

t.test('a digest is of the range after all frames before it', async (t) => {
  const world = await TargetWorld.start(t);
  const source = await world.started();
  const data = Buffer.alloc(600_000, 0x5a);
  source.send({ data: { image: 0, offset: 10 } }, data);
  source.send({ digestRequest: { image: 0, offset: 0, length: IMAGE.size } });
  const reply = (await source.next('digestReply')).digestReply;
  const model = Buffer.alloc(IMAGE.size);
  model.set(data, 10);
  t.equal(Buffer.from(reply.sha256).toString('hex'), sha256(model));
  t.equal(reply.requestSeq, 2);
  source.send({ digestRequest: { image: 0, offset: IMAGE.size - 100, length: 5000 } });
  const tail = (await source.next('digestReply')).digestReply;
  t.equal(
    Buffer.from(tail.sha256).toString('hex'),
    sha256(Buffer.alloc(100)),
    'what is past the end is left out',
  );
});

t.test(
  'a digest request that accepts zero gets it for a hole and for written zeroes, not for data',
  async (t) => {
    const world = await TargetWorld.start(t);
    const source = await world.started({ images: [{ ...IMAGE, size: 2 ** 42 }] });
    const ask = async (offset: number, length: number) => {
      source.send({ digestRequest: { image: 0, offset, length, acceptZero: true } });
      const { zero, sha256 } = (await source.next('digestReply')).digestReply;
      return { zero, length: sha256.length };
    };
    t.same(await ask(0, 2 ** 42), { zero: true, length: 0 }, 'a hole of 4 TiB, at once');
    await source.do({ data: { image: 0, offset: 0 } }, Buffer.alloc(100_000));
    t.same(await ask(0, 900_000), { zero: true, length: 0 });
    await source.do({ data: { image: 0, offset: 2 ** 41 } }, Buffer.from([1]));
    t.same(await ask(2 ** 41 - 600_000, 900_000), { zero: false, length: 32 });
  },
);

t.test('sync and digest wait for what was sent before them, however long that takes', async (t) => {
  const world = await TargetWorld.start(t);
  const source = await world.started();
  const { file } = world.targets.get(ID)!.images[0]!;
  const write = file.write.bind(file);
  let open!: () => void;
  const gate = new Promise<void>((resolve) => {
    open = resolve;
  });
  let synced = false;
  file.write = (chunks, offset) => gate.then(() => write(chunks, offset));
  const datasync = file.datasync.bind(file);
  file.datasync = () => {
    synced = true;
    return datasync();
  };
  const payload = Buffer.alloc(900_000, 1);
  const data = source.send({ data: { image: 0, offset: 0 } }, payload);
  const sync = source.send({ sync: { image: 0 } });
  source.send({ digestRequest: { image: 0, offset: 0, length: payload.length } });
  // Where nothing is in the way a later frame goes ahead; its ack proves that all three have arrived.
  t.equal(await source.do({ data: { image: 0, offset: 1_000_000 } }, Buffer.alloc(1)), 'ok');
  t.notOk(source.isAcked(data) || source.isAcked(sync) || synced);
  open();
  t.equal(await source.outcome(sync), 'ok');
  t.ok(source.isAcked(data));
  const { sha256: digest } = (await source.next('digestReply')).digestReply;
  t.equal(Buffer.from(digest).toString('hex'), sha256(payload));
});

const unacceptable: readonly (readonly [string, FrameProperties, Buffer?])[] = [
  ['an image that is not there', { data: { image: 1, offset: 0 } }, Buffer.alloc(1)],
  ['an extent past 2^53', { data: { image: 0, offset: Number.MAX_SAFE_INTEGER } }, Buffer.alloc(2)],
  ['a hole past 2^53', { hole: { image: 0, offset: 2 ** 52, length: 2 ** 52 + 1 } }],
  ['an unknown fallocate mode', { allocate: { image: 0, mode: 0x100, offset: 0, length: 1 } }],
  ['an illegal phase', { phase: { state: 'mirroring' } }],
  ['a second hello', { hello: {} }],
  ['an early cutover offer', { cutoverOffer: { generations: [9] } }],
];
for (const [what, frame, payload] of unacceptable) {
  t.test(`${what} closes the connection and changes nothing`, async (t) => {
    const world = await TargetWorld.start(t);
    const source = await world.started();
    source.send(frame, payload);
    t.match(await source.connection.closed, { code: 'UNAVAILABLE' });
    await world.state('interrupted');
    t.ok(world.content().equals(Buffer.alloc(IMAGE.size)));
  });
}

t.test('a frame with a wrong CRC closes the connection, is not applied, and a RESUME goes on', async (t) => {
  const world = await TargetWorld.start(t);
  const source = await world.started();
  t.equal(await source.do({ data: { image: 0, offset: 0 } }, Buffer.alloc(4096, 1)), 'ok');
  const payload = Buffer.alloc(4096, 2);
  source.send({ data: { image: 0, offset: 0 } });
  source.connection.send({ seq: 99, data: { image: 0, offset: 0 } }, [payload]);
  payload.fill(3);
  source.connection.send({ seq: 100, data: { image: 0, offset: 0 } }, [Buffer.alloc(1)]);
  t.match(await source.connection.closed, { code: 'UNAVAILABLE' });
  await world.state('interrupted');
  t.ok(world.content().subarray(0, 4096).equals(Buffer.alloc(4096, 1)), 'the bad frame changed nothing');
  const again = await world.source();
  t.match(await again.hello({ purpose: 1 }), { remembers: true, taken: false });
  t.equal(await again.do({ data: { image: 0, offset: 0 } }, Buffer.alloc(4096, 4)), 'ok');
});
