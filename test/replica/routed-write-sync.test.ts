import { MessageChannel } from 'node:worker_threads';
import t from 'tap';
import { createBackingCalls } from '../../src/fs/backing-calls.js';
import { Errno } from '../../src/fs/errno.js';
import { ImageTable } from '../../src/fs/image-table.js';
import type { RoutedRequest } from '../../src/fs/participant.js';
import { systemClock } from '../../src/leaves/clock.js';
import type { FindHandler, Reply } from '../../src/replica/routed-requests.js';
import { RoutedRequests } from '../../src/replica/routed-requests.js';

/** Sends one write of four bytes that is to be durable; `results` are what the image's handler answers, in turn. */
const write = async (
  t: { teardown: (end: () => void) => void },
  sync: 'data' | 'all',
  results: readonly number[],
) => {
  const { port1, port2 } = new MessageChannel();
  const seen: string[] = [];
  const left = [...results];
  const handle = (request: RoutedRequest, reply: Reply): void => {
    seen.push(request.op === 'fsync' ? `fsync ${request.datasync}` : request.op);
    setImmediate(() => reply(left.shift()!));
  };
  const find: FindHandler = () => handle;
  const ends = [{ port: port1, wake: null }];
  const requests = new RoutedRequests(ends, new ImageTable(), createBackingCalls(), find, systemClock);
  t.teardown(() => requests.close());
  const answered = new Promise((resolve) => port2.once('message', resolve));
  const request: RoutedRequest = {
    op: 'write',
    slot: 0,
    fd: -1,
    reply: { kind: 'port', id: 1 },
    offset: 0,
    payload: Buffer.alloc(4),
    sync,
  };
  port2.postMessage(request);
  return { answer: await answered, seen };
};

t.test('a routed write that is to be durable is answered once both sides have synced it', async (t) => {
  t.match(await write(t, 'data', [4, 0]), { answer: { result: 4 }, seen: ['write', 'fsync true'] });
  t.match(await write(t, 'all', [4, 0]), { answer: { result: 4 }, seen: ['write', 'fsync false'] });
});

t.test('one that fails is not synced, and one that cannot be synced fails', async (t) => {
  const failed = await write(t, 'data', [-Errno.ENOSPC]);
  t.match(failed.answer, { result: -Errno.ENOSPC });
  t.same(failed.seen, ['write']);
  t.match(await write(t, 'data', [4, -Errno.EIO]), { answer: { result: -Errno.EIO } });
});
