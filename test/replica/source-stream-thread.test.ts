/** The source's thread of a stream that breaks: every guest is answered, and what is lost is marked before (G1, G2). */
import { once } from 'node:events';
import { closeSync, openSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { MessageChannel, Worker } from 'node:worker_threads';
import t from 'tap';
import { DirtyBitmap } from '../../src/fs/dirty-bitmap.js';
import { close, EFD_CLOEXEC, eventfd, SHUT_RDWR, shutdown } from '../../src/fs/libc.js';
import { MirrorLane } from '../../src/fs/mirror-lane.js';
import { WrittenBlocks } from '../../src/fs/written-blocks.js';
import { bytes, KiB, MiB } from '../../src/leaves/units.js';
import type {
  FromSourceStream,
  SourceStreamSetup,
  ToSourceStream,
} from '../../src/replica/stream-messages.js';
import { scratchDir } from '../support/scratch.js';
import { socketPair } from '../support/socket-pair.js';

const SLOT = 4;
const BLOCK = bytes(4 * KiB);

t.test('a write that is lost while its marks are still on their way is marked and answered', async (t) => {
  const [fd, peer] = await socketPair();
  const wakeFd = eventfd(0, EFD_CLOEXEC);
  const lane = new MirrorLane();
  const { port1, port2 } = new MessageChannel();
  const workerData: SourceStreamSetup = {
    fd,
    sendKey: null,
    receiveKey: null,
    wakeFd,
    lane: lane.buffer,
    port: port2,
  };
  const thread = new Worker(new URL('../../src/replica/source/stream-thread.js', import.meta.url), {
    workerData,
    transferList: [port2],
  });
  const messages: FromSourceStream[] = [];
  thread.on('message', (message: FromSourceStream) => messages.push(message));
  let crash: unknown;
  thread.on('error', (error) => {
    crash = error;
  });
  await once(thread, 'message');
  // In place of /dev/fuse.
  const answers = join(scratchDir(t), 'answers');
  const fuseFd = openSync(answers, 'w+');
  const bitmap = DirtyBitmap.allocate(bytes(MiB), BLOCK);
  const written = WrittenBlocks.allocate(bytes(MiB), BLOCK);
  const post = (message: ToSourceStream): void => port1.postMessage(message);
  // Nobody wakes it: it sleeps until the connection breaks, and has not looked.
  post({
    type: 'marks',
    images: [{ slot: SLOT, bitmap: bitmap.buffer, written: written.buffer, blockSize: BLOCK }],
  });
  post({ type: 'drain', id: 1 });
  const entry = lane.begin(0, SLOT, 8 * KiB, BLOCK, fuseFd, 41, 42);
  t.notOk(lane.made(0, entry, BLOCK, bitmap), 'made here, not answered');
  // Flushes that the target has not done: of one nothing is known but that it was done here, one is still being done.
  const flushed = lane.syncs.begin(0, lane.nextSequence(), fuseFd, 51, 52, false);
  t.notOk(lane.syncs.made(flushed, 0), 'done here, not answered');
  const flushing = lane.syncs.begin(0, lane.nextSequence(), fuseFd, 61, 62, false);
  shutdown(peer, SHUT_RDWR);
  await once(thread, 'exit');
  t.equal(crash, undefined);
  t.equal(lane.underWay, 0);
  t.equal(bitmap.dirtyBlocks, 1, 'marked');
  const answer = new Uint32Array(6);
  t.equal(readSync(fuseFd, answer, 0, 24, 0), 24, 'answered');
  t.same([...answer], [24, 0, 41, 42, BLOCK, 0]);
  t.equal(readSync(fuseFd, answer, 0, 24, 24), 16, 'and the flush that was done here');
  t.same([...answer.subarray(0, 4)], [16, 0, 51, 52]);
  t.ok(lane.syncs.made(flushing, 0), 'the other is answered by whoever does it');
  t.equal(lane.syncs.oldest, 0, 'nobody waits for the target any more');
  t.same(
    messages.map(({ type }) => type),
    ['ready', 'closed'],
    'what is lost is not drained',
  );
  closeSync(fuseFd);
  for (const each of [fd, peer, wakeFd]) close(each);
  port1.close();
});
