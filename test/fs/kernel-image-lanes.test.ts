/** Queues of images whose backing files are slow, and the few threads that serve them. */
import t from 'tap';
import { ImageTable } from '../../src/fs/image-table.js';
import { ImageLanes } from '../../src/fs/kernel/image-lanes.js';
import { Opcode } from '../../src/fs/kernel/protocol.js';
import { Seats } from '../../src/fs/kernel/seats.js';
import type { HandedOver } from '../../src/fs/kernel/thread-messages.js';
import { millis } from '../../src/leaves/units.js';

const IMAGES = 40;
const ROUNDS = 10;

const readOf = (slot: number): HandedOver => {
  const request = new Uint8Array(64);
  new Uint32Array(request.buffer)[1] = Opcode.READ;
  return { slot, fuseFd: -1, request };
};

t.test('with more slow images than threads each has its turn', async (t) => {
  const served: number[] = [];
  /** What ends the call that a thread is in. */
  const calls: (() => void)[] = [];
  const lanes = new ImageLanes({
    table: new ImageTable(),
    seats: new Seats(IMAGES),
    start: (_seat, _announced, onMessage) => ({
      ready: Promise.resolve(),
      ended: new Promise(() => {}),
      post: (given) => {
        served.push((given as HandedOver).slot);
        calls.push(() => onMessage({ type: 'served' }));
      },
      unref: () => {},
    }),
    now: () => millis(0),
    log: () => {},
  });
  // Each has another request by the time it is served.
  for (let slot = 0; slot < IMAGES; slot++) for (let i = 0; i < ROUNDS; i++) lanes.accept(readOf(slot));
  while (served.length < (IMAGES * ROUNDS) / 2) calls.shift()!();
  const turns = Array.from({ length: IMAGES }, (_, slot) => served.filter((each) => each === slot).length);
  t.ok(Math.min(...turns) >= ROUNDS / 2 - 2, `${Math.min(...turns)} to ${Math.max(...turns)} turns`);
});
