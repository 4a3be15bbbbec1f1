/** G7: daemons with the certificates of peers migrate and talk to each other's brokers, and can do no more. */
import t from 'tap';
import { connect } from '../../src/control/control-client.js';
import { parseHostPort } from '../../src/leaves/host-port.js';
import { readTlsIdentity } from '../../src/leaves/tls-identity.js';
import { bytesPerSecond, millis, UNLIMITED } from '../../src/leaves/units.js';
import { makeSparseImage } from '../support/files.js';
import { Followed } from '../support/pair.js';
import { scratchDir } from '../support/scratch.js';
import { TestDaemon } from '../support/test-daemon.js';
import { makeTlsFiles, signCertificate } from '../support/tls-files.js';

const MB = 1e6;
const PERIOD = millis(500);

const folder = scratchDir(t, 'certificates');
const admin = readTlsIdentity(makeTlsFiles(folder, 'admin'))!;
const peer = signCertificate(folder, 'admin', 'peer', '/CN=peer/OU=peer');

const tlsArgs = [`--tls-ca=${peer.ca}`, `--tls-cert=${peer.cert}`, `--tls-key=${peer.key}`];
const [here, there] = await Promise.all([
  TestDaemon.start(t, { extraArgs: tlsArgs }),
  TestDaemon.start(t, { extraArgs: tlsArgs }),
]);

t.test('a broker in danger is heard by the broker of another daemon', async (t) => {
  const started = async (from: TestDaemon, to: TestDaemon, deadlineAfter?: number) => {
    const client = connect({ server: parseHostPort(from.controlAddress), tls: admin });
    t.teardown(() => client.close());
    const image = deadlineAfter === undefined ? 'calm.raw' : 'urgent.raw';
    makeSparseImage(from.below(image), 128 * MB, [{ offset: 0, length: 128 * MB }]);
    const first = await client.start({
      images: [image],
      target: to.dataAddress,
      cutover: 'explicit',
      netLimit: bytesPerSecond(2 * MB),
      diskLimit: UNLIMITED,
      priority: 0,
      broker: { period: PERIOD, vmmTime: millis(0) },
      ...(deadlineAfter !== undefined && { deadlineAfter: millis(deadlineAfter) }),
    });
    return { client, migration: new Followed(t, client, first) };
  };
  const calm = await started(there, here);
  const urgent = await started(here, there, 128_000);
  await urgent.client.setBrokerPath(urgent.migration.id, [
    { link: 'tor3', sharers: [{ server: there.controlAddress, migrationId: calm.migration.id }] },
  ]);
  await calm.migration.until((s) => s.brokerNetLimit !== undefined);
  t.match(await calm.client.broker(calm.migration.id), { askedBy: [urgent.migration.id] });

  // What a daemon's certificate is good for elsewhere.
  using asPeer = connect({ server: parseHostPort(here.controlAddress), tls: readTlsIdentity(peer)! });
  t.match(await asPeer.status(), { pid: here.pid });
  await t.rejects(asPeer.cancel(urgent.migration.id), { code: 'PERMISSION_DENIED', message: /role peer/ });
  await urgent.client.cancel(urgent.migration.id);
  await calm.client.cancel(calm.migration.id);
});
