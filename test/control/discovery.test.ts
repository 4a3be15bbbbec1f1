import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { Client, credentials, Metadata } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { service as healthService } from 'grpc-health-check';
import t from 'tap';
import { serviceDefinition } from '../../src/control/service-definition.js';
import { controlFixture } from '../support/control-fixture.js';

const fixture = await controlFixture();
const client = new Client(fixture.server.address, credentials.createInsecure());
t.teardown(async () => {
  client.close();
  await fixture.server.close();
});

t.test('health says SERVING for the server and for the service, NOT_FOUND for others', async (t) => {
  const check = (service: string): Promise<object | undefined> => {
    const { path, requestSerialize, responseDeserialize } = healthService['Check']!;
    return new Promise((resolve, reject) => {
      client.makeUnaryRequest(path, requestSerialize, responseDeserialize, { service }, (error, reply) =>
        error ? reject(error) : resolve(reply),
      );
    });
  };
  t.match(await check(''), { status: 'SERVING' });
  t.match(await check('migratefs.v1.MigrateFS'), { status: 'SERVING' });
  await t.rejects(check('nobody'), { code: 5 });
});

t.test('reflection gives a client the whole service, documented types included', async (t) => {
  const folder = dirname(createRequire(import.meta.url).resolve('@grpc/reflection/package.json'));
  const reflection = loadSync(join(folder, 'build/proto/grpc/reflection/v1/reflection.proto'), {
    defaults: true,
    oneofs: true,
  })['grpc.reflection.v1.ServerReflection'] as unknown as typeof healthService;
  const { path, requestSerialize, responseDeserialize } = reflection['ServerReflectionInfo']!;
  const call = client.makeBidiStreamRequest(path, requestSerialize, responseDeserialize, new Metadata());
  const replies = call[Symbol.asyncIterator]();
  type Reply = {
    listServicesResponse?: { service: { name: string }[] };
    fileDescriptorResponse?: { fileDescriptorProto: Buffer[] };
  };
  const ask = async (request: object): Promise<Reply> => {
    call.write(request);
    return (await replies.next()).value as Reply;
  };
  const { listServicesResponse } = await ask({ listServices: '' });
  t.same(listServicesResponse?.service.map(({ name }) => name).sort(), [
    'grpc.health.v1.Health',
    'migratefs.v1.Brokers',
    'migratefs.v1.MigrateFS',
  ]);
  const { fileDescriptorResponse } = await ask({ fileContainingSymbol: 'migratefs.v1.MigrateFS' });
  const descriptor = Buffer.concat(fileDescriptorResponse!.fileDescriptorProto).toString('latin1');
  const methods = Object.keys(serviceDefinition);
  t.ok(methods.length === 16, `${methods.length} methods`);
  for (const method of methods) t.ok(descriptor.includes(method), method);
  t.ok(descriptor.includes('network_limit_kb_per_s'), 'fields have the names of the file');
  call.end();
});
