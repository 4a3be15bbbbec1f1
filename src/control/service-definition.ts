import { fileURLToPath } from 'node:url';
import type { ServiceDefinition as GrpcServiceDefinition } from '@grpc/grpc-js';
import { logVerbosity, setLogVerbosity } from '@grpc/grpc-js';
import type { MethodDefinition, PackageDefinition } from '@grpc/proto-loader';
import { loadSync } from '@grpc/proto-loader';
import { KiB, MiB } from '../leaves/units.js';

export const SERVICE_NAME = 'migratefs.v1.MigrateFS';
export const BROKERS_NAME = 'migratefs.v1.Brokers';

/** Bytes of one encoded message. */
export const REQUEST_BYTES_MAX = 256 * KiB;
export const RESPONSE_BYTES_MAX = 16 * MiB;

/** Milliseconds: a peer that does not answer a ping within the timeout is gone, and its calls end. */
export const KEEPALIVE_INTERVAL = 10_000;
export const KEEPALIVE_TIMEOUT = 10_000;

// The library writes to stderr by itself; every failure it reports there also reaches us as an error.
if (!process.env['GRPC_VERBOSITY']) setLogVerbosity(logVerbosity.NONE);

export const PROTO_PATH = fileURLToPath(new URL('../../../proto/migratefs.proto', import.meta.url));

const packageDefinition: PackageDefinition = loadSync(PROTO_PATH, {
  longs: Number,
  enums: String,
  defaults: true,
  oneofs: true,
  arrays: true,
});

const methodsOf = (service: string): Record<string, MethodDefinition<object, object>> =>
  packageDefinition[service] as unknown as Record<string, MethodDefinition<object, object>>;

export const serviceDefinition = methodsOf(SERVICE_NAME) as unknown as GrpcServiceDefinition;
export const brokersDefinition = methodsOf(BROKERS_NAME) as unknown as GrpcServiceDefinition;

/** Of a method of either service; no two have the same name. */
export const methodDefinition = (name: string): MethodDefinition<object, object> =>
  (methodsOf(SERVICE_NAME)[name] ?? methodsOf(BROKERS_NAME)[name])!;
