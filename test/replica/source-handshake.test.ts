/** A hello that gets no reply leaves nothing behind. */
import { getEventListeners } from 'node:events';
import t from 'tap';
import { MigrateFsError } from '../../src/leaves/errors.js';
import { greet } from '../../src/replica/source/handshake.js';
import type { PeerConnection } from '../../src/replica/wire/peer-connection.js';

t.test('connections that end without a reply are not kept by the signal of the migration', async (t) => {
  const stage = new AbortController();
  const listeners = (): number => getEventListeners(stage.signal, 'abort').length;
  for (let attempt = 0; attempt < 3; attempt++) {
    let close: (reason: MigrateFsError) => void = () => {};
    const closed = new Promise<MigrateFsError>((resolve) => {
      close = resolve;
    });
    const connection = { closed, onFrame: () => {}, send: () => {}, remote: 'host-b:7071' };
    const reply = greet(connection as unknown as PeerConnection, {}, stage.signal, () => {});
    t.equal(listeners(), 1, 'it can be given up');
    close(new MigrateFsError('UNAVAILABLE', 'silent for 5000 ms'));
    await t.rejects(reply, { code: 'UNAVAILABLE' });
    t.equal(listeners(), 0);
  }
});
