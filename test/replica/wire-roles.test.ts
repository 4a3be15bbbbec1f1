/** G7: which certificates of the cluster may send images. */
import t from 'tap';
import { systemClock as clock } from '../../src/leaves/clock.js';
import { parseHostPort } from '../../src/leaves/host-port.js';
import { readTlsIdentity } from '../../src/leaves/tls-identity.js';
import { PeerConnection } from '../../src/replica/wire/peer-connection.js';
import { PeerListener } from '../../src/replica/wire/peer-listener.js';
import { scratchDir } from '../support/scratch.js';
import { makeTlsFiles, signCertificate } from '../support/tls-files.js';

const folder = scratchDir(t, 'wire-roles');
const warnings: unknown[] = [];
const listener = await PeerListener.listen({
  host: '127.0.0.1',
  port: 0,
  tls: readTlsIdentity(makeTlsFiles(folder, 'target'))!,
  clock,
  onHello: (connection) => {
    connection.send({ helloReply: { targetHost: 'host-b' } });
    connection.resume();
  },
  log: (_level, message, fields) => void warnings.push({ message, ...fields }),
});
t.teardown(() => listener.close());

/** Whether a hello is answered. */
const isServed = async (name: string, subject: string): Promise<boolean> => {
  const tls = readTlsIdentity(signCertificate(folder, 'target', name, subject))!;
  const connection = await PeerConnection.connect({ ...parseHostPort(listener.address), clock, tls });
  t.teardown(() => connection.destroy());
  const answered = new Promise<boolean>((resolve) => connection.onFrame(() => resolve(true)));
  connection.send({ hello: { sourceHost: 'host-a' } });
  return await Promise.race([answered, connection.closed.then(() => false)]);
};

t.test('a daemon with or without a role, and an admin, may', async (t) => {
  t.equal(await isServed('peer', '/CN=a/OU=peer'), true);
  t.equal(await isServed('plain', '/CN=a'), true);
  t.equal(await isServed('admin', '/CN=a/OU=admin'), true);
  t.same(warnings, []);
});

t.test('a broker may not, and the log says so', async (t) => {
  t.equal(await isServed('broker', '/CN=a/OU=broker'), false);
  t.match(warnings, [{ message: /no daemon/, role: 'broker' }]);
});
