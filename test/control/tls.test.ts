import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import tls from 'node:tls';
import t from 'tap';
import { connect } from '../../src/control/control-client.js';
import { parseHostPort } from '../../src/leaves/host-port.js';
import type { TlsIdentity } from '../../src/leaves/tls-identity.js';
import { readTlsIdentity } from '../../src/leaves/tls-identity.js';
import { controlFixture } from '../support/control-fixture.js';

const folder = mkdtempSync(join(tmpdir(), 'mfs-C-tls-'));
t.teardown(() => rmSync(folder, { recursive: true, force: true }));
const openssl = (...args: string[]): void => {
  execFileSync('openssl', args, { cwd: folder, stdio: 'ignore' });
};

const EC = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];

/** An authority `name` and one certificate for 127.0.0.1 signed by it. */
const makeCluster = (name: string): TlsIdentity => {
  const ca = `${name}-ca`;
  openssl(
    'req',
    '-x509',
    ...EC,
    '-keyout',
    `${ca}.key`,
    '-out',
    `${ca}.pem`,
    '-days',
    '2',
    '-subj',
    `/CN=${ca}`,
  );
  openssl('req', ...EC, '-keyout', `${name}.key`, '-out', `${name}.csr`, '-subj', `/CN=${name}`);
  writeFileSync(join(folder, 'san'), 'subjectAltName=IP:127.0.0.1');
  openssl(
    ...['x509', '-req', '-in', `${name}.csr`, '-CA', `${ca}.pem`, '-CAkey', `${ca}.key`, '-CAcreateserial'],
    ...['-out', `${name}.pem`, '-days', '2', '-extfile', 'san'],
  );
  const path = (file: string): string => join(folder, file);
  return readTlsIdentity({ ca: path(`${ca}.pem`), cert: path(`${name}.pem`), key: path(`${name}.key`) })!;
};

const ours = makeCluster('ours');
const strangers = makeCluster('strangers');
const fixture = await controlFixture(ours);
t.teardown(() => fixture.server.close());
const server = parseHostPort(fixture.server.address);

t.test('a client with a certificate of the cluster is served', async (t) => {
  using client = connect({ server, tls: ours });
  t.match(await client.status(), { pid: 4242 });
});

t.test('G7: a client without or with a foreign certificate gets nothing', async (t) => {
  using plain = connect({ server });
  await t.rejects(plain.status(), { code: 'UNAVAILABLE', message: /cannot reach the daemon/ });
  using foreign = connect({ server, tls: strangers });
  await t.rejects(foreign.status(), { code: 'UNAVAILABLE' });
  using nameless = connect({ server, tls: { ...strangers, ca: ours.ca } });
  await t.rejects(nameless.status(), { code: 'UNAVAILABLE' });
});

t.test('a client whose certificates do not fit is told to look at them', async (t) => {
  const hint = / do --tls-ca, --tls-cert and --tls-key fit it /;
  using plain = connect({ server });
  await t.rejects(plain.status(), { message: hint });
  using foreign = connect({ server, tls: strangers });
  await t.rejects(foreign.status(), { message: hint });
  await t.rejects(foreign.status(), { message: /\(self-signed certificate in certificate chain\)$/ });
  const open = await controlFixture();
  t.teardown(() => open.server.close());
  using careful = connect({ server: parseHostPort(open.server.address), tls: ours });
  await t.rejects(careful.status(), { message: hint });
});

t.test('nothing older than TLS 1.3 is spoken', async (t) => {
  const attempt = (version: 'TLSv1.2' | 'TLSv1.3'): Promise<string | null> =>
    new Promise((resolve, reject) => {
      const socket = tls.connect({
        ...server,
        ...ours,
        ALPNProtocols: ['h2'],
        minVersion: version,
        maxVersion: version,
      });
      socket.once('error', reject);
      socket.once('secureConnect', () => {
        resolve(socket.getProtocol());
        socket.destroy();
      });
    });
  t.equal(await attempt('TLSv1.3'), 'TLSv1.3');
  await t.rejects(attempt('TLSv1.2'));
});

t.test('files that are missing, partial or not PEM are named', async (t) => {
  const ca = join(folder, 'ours-ca.pem');
  t.equal(readTlsIdentity({}), undefined);
  t.throws(() => readTlsIdentity({ ca }), {
    code: 'INVALID_ARGUMENT',
    message: /--tls-ca, --tls-cert and --tls-key/,
  });
  t.throws(() => readTlsIdentity({ ca, cert: join(folder, 'none'), key: ca }), {
    message: /certificate .*none/,
  });
  t.throws(() => readTlsIdentity({ ca, cert: join(folder, 'san'), key: ca }), {
    message: /san is not a PEM file/,
  });
  t.throws(
    () => connect({ server, tls: { ...ours, key: readFileSync(join(folder, 'strangers.key'), 'utf8') } }),
    {
      code: 'INVALID_ARGUMENT',
      message: /do not fit/,
    },
  );
});
