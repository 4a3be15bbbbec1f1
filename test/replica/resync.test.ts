/** A comparison with a target that has forgotten, of an image with very many holes. */
import t from 'tap';
import { KiB } from '../../src/leaves/units.js';
import { InFlight } from '../../src/replica/source/in-flight.js';
import { resync } from '../../src/replica/source/resync.js';

const EXTENTS = 20_000;
const STRIDE = 64 * KiB;

type Parameters_ = Parameters<typeof resync>;

t.test('other work has its turn, and what is sent without an answer is bounded', async (t) => {
  const inFlight = new InFlight();
  let sent = 0;
  let most = 0;
  let turns = 0;
  const image = {
    index: 0,
    compared: 0,
    sendSize: () => {},
    bitmap: { allDirty: () => true },
    port: {
      size: () => EXTENTS * STRIDE,
      nextData: (at: number) => ({ offset: Math.floor(at / STRIDE) * STRIDE + 60 * KiB, length: 4 * KiB }),
    },
  };
  const wire = {
    inFlight,
    send: (_change: unknown, settled: () => void) => {
      inFlight.add(++sent, settled);
      most = Math.max(most, inFlight.size);
    },
  };
  const turn = async (): Promise<void> => {
    turns++;
    await new Promise(setImmediate);
  };
  const marked = resync(
    image as unknown as Parameters_[0],
    wire as unknown as Parameters_[1],
    { turn } as unknown as Parameters_[2],
    new AbortController().signal,
  );
  let over = false;
  const done = marked.then(() => {
    over = true;
  });
  for (let acked = 0; !over; await new Promise(setImmediate))
    // The target answers now and then.
    if (inFlight.size > 4096 || acked < sent) for (const end = sent; acked < end; ) inFlight.ack(++acked);
  await done;
  t.equal(await marked, 0);
  t.equal(sent, EXTENTS);
  t.ok(most <= 4097, `${most} in flight`);
  t.ok(turns >= EXTENTS / 500, `${turns} turns`);
});
