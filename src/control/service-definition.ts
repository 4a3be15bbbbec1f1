import { fileURLToPath } from 'node:url';
import type { MethodDefinition } from '@grpc/grpc-js';
import { logVerbosity, setLogVerbosity } from '@grpc/grpc-js';
import { KiB, MiB } from '../leaves/units.js';
import type { MessageCodec } from './generated/control.js';
import { services } from './generated/control.js';

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

/** What a message looks like on our side; absent fields have their defaults. */
const CONVERSION = { longs: Number, enums: String, defaults: true, oneofs: true, arrays: true };

const serializerOf =
  ({ fromObject, encode }: MessageCodec) =>
  (message: object): Buffer =>
    encode(fromObject(message)).finish() as Buffer;

const deserializerOf =
  ({ decode, toObject }: MessageCodec) =>
  (bytes: Buffer): object =>
    toObject(decode(bytes), CONVERSION);

type Methods = Readonly<Record<string, MethodDefinition<object, object>>>;

/** The methods of a service of proto/, by its full name. */
export const methodsOf = (service: string): Methods =>
  Object.fromEntries(
    Object.entries(services[service]!).map(([name, { request, response, ...streams }]) => [
      name,
      {
        path: `/${service}/${name}`,
        ...streams,
        requestSerialize: serializerOf(request),
        requestDeserialize: deserializerOf(request),
        responseSerialize: serializerOf(response),
        responseDeserialize: deserializerOf(response),
      },
    ]),
  );

export const serviceDefinition = methodsOf(SERVICE_NAME);
export const brokersDefinition = methodsOf(BROKERS_NAME);

/** Of a method of either service; no two have the same name. */
export const methodDefinition = (name: string): MethodDefinition<object, object> =>
  (serviceDefinition[name] ?? brokersDefinition[name])!;
