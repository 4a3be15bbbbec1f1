/** G7: the role in a certificate bounds what its holder may call. */
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { createSecureContext } from 'node:tls';
import { Client, credentials, Metadata } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { service as healthService } from 'grpc-health-check';
import t from 'tap';
import type { ControlClient } from '../../src/control/control-client.js';
import { connect } from '../../src/control/control-client.js';
import { callerRole, mayCall } from '../../src/control/roles.js';
import { brokersDefinition, serviceDefinition } from '../../src/control/service-definition.js';
import { parseHostPort } from '../../src/leaves/host-port.js';
import { readTlsIdentity } from '../../src/leaves/tls-identity.js';
import { bytesPerSecond, millis, UNLIMITED } from '../../src/leaves/units.js';
import { controlFixture } from '../support/control-fixture.js';
import { brokerExample, FakeBrokerControl } from '../support/fake-broker-control.js';
import { snapshotExample } from '../support/fake-migration-control.js';
import { scratchDir } from '../support/scratch.js';
import { makeTlsFiles, signCertificate } from '../support/tls-files.js';

const folder = scratchDir(t, 'roles');
const ours = readTlsIdentity(makeTlsFiles(folder, 'ours'))!;
const identityOf = (name: string, units: string) =>
  readTlsIdentity(signCertificate(folder, 'ours', name, `/CN=${name}${units}`))!;

const brokers = new FakeBrokerControl();
brokers.brokers.set('m1', brokerExample);
const fixture = await controlFixture(ours, brokers);
fixture.control.put(snapshotExample);
const server = parseHostPort(fixture.server.address);
t.teardown(() => fixture.server.close());

const clientOf = (name: string, units: string): ControlClient => {
  const client = connect({ server, tls: identityOf(name, units) });
  t.teardown(() => client.close());
  return client;
};

const start = {
  images: ['a'],
  target: 'b:1',
  cutover: 'explicit',
  netLimit: UNLIMITED,
  diskLimit: UNLIMITED,
  priority: 0,
} as const;
const request = { migrationId: 'm1', from: 'm2', link: 'l', validFor: millis(1_000), ratio: 1 };
const limit = bytesPerSecond(1_000_000);

/** Every unary call; `watch` is tried beside them. */
const calls: Readonly<Record<string, (client: ControlClient) => Promise<unknown>>> = {
  StartMigration: (client) => client.start(start),
  SetNetworkLimit: (client) => client.setNetworkLimit('m1', limit),
  SetDiskLimit: (client) => client.setDiskLimit('m1', limit),
  QueryProgress: (client) => client.queryProgress('m1'),
  QueryCompletion: (client) => client.queryCompletion('m1'),
  GetMigration: (client) => client.get('m1'),
  ListMigrations: (client) => client.list(),
  Pause: (client) => client.pause('m1'),
  Resume: (client) => client.resume('m1'),
  Cancel: (client) => client.cancel('m1'),
  Cutover: (client) => client.cutover('m1'),
  DescribeImages: (client) => client.describeImages(['a']),
  Verify: (client) => client.verify('m1'),
  GetStatus: (client) => client.status(),
  Unmount: (client) => client.unmount({ mountpoint: '/mnt', lazy: false }),
  GetBroker: (client) => client.broker('m1'),
  ListBrokers: (client) => client.brokers(),
  SetBrokerPath: (client) => client.setBrokerPath('m1', []),
  BackOff: (client) => client.backOff(request),
};

/** Names of the calls that the role does not cover. */
const refusedFor = async (client: ControlClient): Promise<readonly string[]> => {
  const refused: string[] = [];
  for (const [name, call] of Object.entries(calls))
    await call(client).catch((error: { code?: string; message: string }) => {
      if (error.code !== 'PERMISSION_DENIED') return;
      t.match(error.message, new RegExp(`may not call ${name}: use one of an admin$`));
      refused.push(name);
    });
  return refused;
};

const watches = async (client: ControlClient): Promise<boolean> => {
  for await (const { id } of client.watch('')) return id === 'm1';
  return false;
};

t.test('the table of this test has every method that there is', async (t) => {
  const methods = [...Object.keys(serviceDefinition), ...Object.keys(brokersDefinition)];
  t.same([...Object.keys(calls), 'WatchMigration'].sort(), methods.sort());
});

t.test('an admin may call everything, with the role, without one, or with another unit', async (t) => {
  for (const [name, units] of [
    ['admin', '/OU=admin'],
    ['nothing', ''],
    ['department', '/OU=Storage'],
  ] as const)
    t.same(await refusedFor(clientOf(name, units)), [], name);
});

t.test('a broker looks, sets the limits of a broker, and asks for back-off', async (t) => {
  const client = clientOf('broker', '/OU=broker');
  t.same(await refusedFor(client), [
    ...['StartMigration', 'Pause', 'Resume', 'Cancel', 'Cutover', 'DescribeImages', 'Verify', 'Unmount'],
    'SetBrokerPath',
  ]);
  t.equal(await watches(client), true);
  fixture.control.calls.length = 0;
  await client.setNetworkLimit('m1', limit);
  await client.setDiskLimit('m1', limit);
  t.same(fixture.control.calls, [
    ['setLimits', 'm1', { netLimit: 1_000_000 }, 'broker'],
    ['setLimits', 'm1', { diskLimit: 1_000_000 }, 'broker'],
  ]);
});

t.test('a peer asks for back-off and who the daemon is, nothing more', async (t) => {
  const client = clientOf('peer', '/OU=peer');
  fixture.control.calls.length = 0;
  const allowed = ['GetStatus', 'BackOff'];
  t.same(
    await refusedFor(client),
    Object.keys(calls).filter((name) => !allowed.includes(name)),
  );
  await t.rejects(watches(client), { code: 'PERMISSION_DENIED' });
  t.same(fixture.control.calls, [], 'nothing of it was seen behind the gate');
});

t.test('of several roles the least counts', async (t) => {
  const client = clientOf('several', '/OU=admin/OU=peer');
  await t.rejects(client.list(), { code: 'PERMISSION_DENIED', message: /the role peer/ });
});

t.test('health is for everybody, reflection not for peers', async (t) => {
  const raw = (name: string, units: string): Client => {
    const context = createSecureContext({ ...identityOf(name, units), minVersion: 'TLSv1.3' });
    const client = new Client(fixture.server.address, credentials.createFromSecureContext(context));
    t.teardown(() => client.close());
    return client;
  };
  const peer = raw('peer2', '/OU=peer');
  const check = healthService['Check']!;
  const health = await new Promise((resolve, reject) => {
    peer.makeUnaryRequest(
      check.path,
      check.requestSerialize,
      check.responseDeserialize,
      { service: '' },
      (error, reply) => (error ? reject(error) : resolve(reply)),
    );
  });
  t.match(health, { status: 'SERVING' });
  const proto = join(
    dirname(createRequire(import.meta.url).resolve('@grpc/reflection/package.json')),
    'build/proto/grpc/reflection/v1/reflection.proto',
  );
  const reflection = loadSync(proto)[
    'grpc.reflection.v1.ServerReflection'
  ] as unknown as typeof healthService;
  const info = reflection['ServerReflectionInfo']!;
  const reflect = async (client: Client): Promise<unknown> => {
    const call = client.makeBidiStreamRequest(
      info.path,
      info.requestSerialize,
      info.responseDeserialize,
      new Metadata(),
    );
    call.write({ listServices: '' });
    try {
      return (await call[Symbol.asyncIterator]().next()).value;
    } finally {
      call.cancel();
    }
  };
  t.match(await reflect(raw('broker2', '/OU=broker')), { listServicesResponse: {} });
  await t.rejects(reflect(peer), { code: 7 });
});

t.test('where certificates are wanted and none is seen, nothing may be called', async (t) => {
  t.equal(callerRole({}, true), undefined);
  t.equal(mayCall(undefined, '/grpc.health.v1.Health/Check'), false);
  t.equal(callerRole(null, false), 'admin', 'without certificates the port is for this machine');
});
