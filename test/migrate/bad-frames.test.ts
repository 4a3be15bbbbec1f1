/** A stranger on the data port: refused, logged, and nobody else notices (G7, DESIGN 6). */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import t from 'tap';
import { parseHostPort } from '../../src/leaves/host-port.js';
import { MiB } from '../../src/leaves/units.js';
import { encodeFrame, PROTOCOL_VERSION } from '../../src/replica/wire/frame.js';
import { identical } from '../support/cutover.js';
import { filesOf } from '../support/debris.js';
import { makeSparseImage } from '../support/files.js';
import { migrate, startPair } from '../support/pair.js';
import { within } from '../support/test-daemon.js';
import { waitFor } from '../support/wait-for.js';

const CLOSE_MAX_MS = 15_000;

/** Sends `bytes` to a data port and resolves with what came back until the daemon closed the connection. */
const answerTo = async (address: string, bytes: Buffer): Promise<Buffer> => {
  const socket: Socket = connect(parseHostPort(address));
  await once(socket, 'connect');
  const received: Buffer[] = [];
  socket.on('data', (chunk) => received.push(chunk)).on('error', () => undefined);
  socket.write(bytes);
  await within(
    new Promise((resolve) => socket.once('close', resolve)),
    CLOSE_MAX_MS,
    () => 'the daemon keeps the connection open',
  );
  return Buffer.concat(received);
};

const hello = (version: number): Buffer =>
  Buffer.concat(
    encodeFrame({
      hello: {
        protocolVersion: version,
        migrationId: 'stranger',
        sourceInstance: 'nobody',
        cutover: 'explicit',
        blockSize: 65_536,
        images: [{ name: '../../etc/passwd', size: 4096, mode: 0o644 }],
      },
    }),
  );

t.test('malformed frames close the connection and disturb nobody', async (t) => {
  const pair = await startPair(t);
  const { source, target } = pair;
  makeSparseImage(source.daemon.below('vm.raw'), 32 * MiB, [{ offset: 0, length: 16 * MiB }]);
  const migration = await migrate(t, pair, ['vm.raw'], { netLimit: 8 * MiB, cutover: 'when-in-sync' });
  const oversized = Buffer.alloc(64, 0xff);
  for (const { daemon } of [source, target])
    for (const bytes of [Buffer.from('GET / HTTP/1.1\r\nHost: x\r\n\r\n'), oversized, Buffer.alloc(4096, 7)])
      await answerTo(daemon.dataAddress, bytes);
  await answerTo(target.daemon.dataAddress, hello(PROTOCOL_VERSION));
  await waitFor(
    () =>
      target.daemon.log.some(
        (line) => /frame|protocol|peer|connection/i.test(line) && /"level":(40|50)/.test(line),
      ),
    'it is in the log',
  );
  await migration.reaches('completed');
  t.ok(await identical(source.daemon.below('vm.raw'), target.daemon.below('vm.raw')));
  t.same(filesOf(target.daemon), ['vm.raw'], 'nothing else was made');
});

t.test('an unknown protocol version is refused with both versions named', async (t) => {
  const pair = await startPair(t);
  const answer = await answerTo(pair.target.daemon.dataAddress, hello(4711));
  t.match(answer.toString('latin1'), /4711/, 'the version offered');
  t.match(
    answer.toString('latin1'),
    new RegExp(`version \\D*${PROTOCOL_VERSION}\\b|\\b${PROTOCOL_VERSION}\\b`),
    'the version spoken',
  );
});
