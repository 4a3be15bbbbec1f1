/** What a source sends is not read on while too much of it has not been answered. */
import t from 'tap';
import { KiB } from '../../src/leaves/units.js';
import { receive } from '../../src/replica/target/reception.js';
import type { Applied, TargetImage } from '../../src/replica/target/target-image.js';
import type { Frame } from '../../src/replica/wire/frame.js';
import type { PeerConnection } from '../../src/replica/wire/peer-connection.js';

type Handler = (frame: Frame, payload: readonly Uint8Array[]) => void;

/** A connection that does what it is told, and an image that answers when the test says so. */
const world = () => {
  let handler: Handler = () => {};
  let reading = false;
  const connection = {
    closed: new Promise(() => {}),
    onFrame: (given: Handler) => {
      handler = given;
    },
    send: () => {},
    pause: () => {
      reading = false;
    },
    resume: () => {
      reading = true;
    },
  };
  const waiting: (() => void)[] = [];
  const image = {
    sync: (applied: Applied) => void waiting.push(applied),
    digest: () =>
      new Promise((resolve) => waiting.push(() => resolve({ sha256: new Uint8Array(32), zero: false }))),
  };
  receive(
    connection as unknown as PeerConnection,
    [image as unknown as TargetImage],
    { log: () => {} },
    {
      data: () => {},
      phase: () => true,
      offer: () => {},
      discard: () => {},
      failed: () => {},
      admits: () => true,
    },
  );
  return {
    waiting,
    reading: () => reading,
    /** What was read before is handed over although nothing more is read. */
    hand: (frame: object): void => handler(frame as unknown as Frame, []),
    /** Sends one frame after the other while they are read, `most` at most; how many. */
    flood: (frame: object, most: number): number => {
      let sent = 0;
      while (reading && sent < most) handler({ ...frame, seq: ++sent } as unknown as Frame, []);
      return sent;
    },
  };
};

for (const [what, frame, most] of [
  [
    'digests of half a MiB',
    { body: 'digestRequest', digestRequest: { image: 0, offset: 0, length: 512 * KiB } },
    33,
  ],
  [
    'digests of a TiB',
    { body: 'digestRequest', digestRequest: { image: 0, offset: 0, length: 2 ** 40 } },
    33,
  ],
  ['digests of nothing', { body: 'digestRequest', digestRequest: { image: 0, offset: 0, length: 0 } }, 4097],
  ['syncs', { body: 'sync', sync: { image: 0, ahead: false } }, 4097],
] as const)
  t.test(`of ${what} ${most} wait at most`, async (t) => {
    const { waiting, reading, flood } = world();
    t.equal(flood(frame, 10_000), most);
    while (waiting.length > 0) {
      for (const answer of waiting.splice(0)) answer();
      await new Promise(setImmediate);
    }
    t.ok(reading(), 'it goes on once they are answered');
  });

t.test('of the digests that one read brings 8 are made at a time', async (t) => {
  const { waiting, hand } = world();
  for (let seq = 1; seq <= 100; seq++)
    hand({ body: 'digestRequest', seq, digestRequest: { image: 0, offset: 0, length: 512 * KiB } });
  let answered = 0;
  for (; waiting.length > 0; answered++) {
    t.ok(waiting.length <= 8, `${waiting.length} under way after ${answered}`);
    waiting.shift()!();
    await new Promise(setImmediate);
  }
  t.equal(answered, 100);
});
