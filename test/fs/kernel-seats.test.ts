/** Participants of a mount come and go while images are announced to them. */
import type { MessagePort } from 'node:worker_threads';
import { receiveMessageOnPort, Worker } from 'node:worker_threads';
import t from 'tap';
import { Seats } from '../../src/fs/kernel/seats.js';
import type { BitmapAnnouncement } from '../../src/fs/participant.js';

const ANNOUNCEMENTS = 2000;
const SEATS = 24;

t.test('G1: whoever takes a seat knows every image that is announced meanwhile', async (t) => {
  const seats = new Seats(SEATS);
  const ports = seats.ends.map(({ port }) => port);
  const [wanted, done] = [new SharedArrayBuffer(4), new SharedArrayBuffer(4)].map(
    (memory) => new Int32Array(memory),
  ) as [Int32Array, Int32Array];
  const thread = new Worker(new URL('../support/announcing-thread.js', import.meta.url), {
    workerData: { ports, count: ANNOUNCEMENTS, wanted, done },
    transferList: ports as MessagePort[],
  });
  const ended = new Promise((resolve) => thread.once('exit', resolve));
  await new Promise((resolve) => thread.once('online', resolve));
  const missed: number[] = [];
  for (let slot = 0; slot < ANNOUNCEMENTS; slot++) {
    Atomics.store(wanted, 0, slot + 1);
    Atomics.notify(wanted, 0);
    // From before the first port has it to after the last.
    for (let spin = (slot % 100) * 100; spin > 0; spin--) Atomics.load(done, 0);
    const { seat, announced } = seats.take()!;
    Atomics.wait(done, 0, slot);
    const known = new Set(announced.map((each) => each.slot));
    for (let got = receiveMessageOnPort(seat.port); got; got = receiveMessageOnPort(seat.port))
      known.add((got.message as BitmapAnnouncement).slot);
    if (!known.has(slot)) missed.push(slot);
    seats.giveBack(seat.participant, seat.port);
  }
  await ended;
  t.same(missed, []);
  seats.close();
});
