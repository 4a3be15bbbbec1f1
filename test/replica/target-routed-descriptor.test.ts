import { closeSync, fstatSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { MessageChannel } from 'node:worker_threads';
import t from 'tap';
import { createBackingCalls } from '../../src/fs/backing-calls.js';
import { ImageTable } from '../../src/fs/image-table.js';
import type { RoutedRequest } from '../../src/fs/participant.js';
import { systemClock } from '../../src/leaves/clock.js';
import { RoutedRequests } from '../../src/replica/routed-requests.js';
import { scratchDir } from '../support/scratch.js';

t.test('a descriptor that is of one request alone is closed with the answer, the handle stays', async (t) => {
  const { port1, port2 } = new MessageChannel();
  const requests = new RoutedRequests(
    [{ port: port1, wake: null }],
    new ImageTable(),
    createBackingCalls(),
    () => undefined,
    systemClock,
  );
  t.teardown(() => requests.close());
  const path = join(scratchDir(t, 'routed'), 'image');
  for (const ownFd of [false, true]) {
    const fd = openSync(path, 'w');
    const payload = Buffer.from(`${ownFd}`);
    const answered = new Promise((resolve) => port2.once('message', resolve));
    const request: RoutedRequest = {
      op: 'write',
      slot: 0,
      fd,
      reply: { kind: 'port', id: 1 },
      offset: 0,
      payload,
      ownFd,
    };
    port2.postMessage(request);
    t.match(await answered, { result: payload.length });
    t.equal(readFileSync(path, 'utf8'), `${ownFd}`);
    if (ownFd) t.throws(() => fstatSync(fd), { code: 'EBADF' });
    else closeSync(fd);
  }
});
