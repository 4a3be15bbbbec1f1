import { fileURLToPath } from 'node:url';
import type { ServiceDefinition as GrpcServiceDefinition } from '@grpc/grpc-js';
import { logVerbosity, setLogVerbosity } from '@grpc/grpc-js';
import type { MethodDefinition, PackageDefinition } from '@grpc/proto-loader';
import { loadSync } from '@grpc/proto-loader';
import { KiB, MiB } from '../leaves/units.js';

export const SERVICE_NAME = 'migratefs.v1.MigrateFS';

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

export const serviceDefinition = packageDefinition[SERVICE_NAME] as unknown as GrpcServiceDefinition;

export const methodDefinition = (name: string): MethodDefinition<object, object> =>
  (packageDefinition[SERVICE_NAME] as unknown as Record<string, MethodDefinition<object, object>>)[name]!;
