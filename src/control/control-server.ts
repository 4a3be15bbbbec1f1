import tls from 'node:tls';
import type { ServerUnaryCall, sendUnaryData, UntypedServiceImplementation } from '@grpc/grpc-js';
import { Server, ServerCredentials } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { ReflectionService } from '@grpc/reflection';
import { HealthImplementation, protoPath as healthProtoPath } from 'grpc-health-check';
import type { Clock } from '../leaves/clock.js';
import { systemClock } from '../leaves/clock.js';
import { MigrateFsError } from '../leaves/errors.js';
import type { HostPort } from '../leaves/host-port.js';
import { formatHostPort } from '../leaves/host-port.js';
import type { LogSink } from '../leaves/log-sink.js';
import type { DaemonStatus, MigrationControl } from '../leaves/migration.js';
import type { TlsIdentity } from '../leaves/tls-identity.js';
import { assertSafeListener } from '../leaves/tls-identity.js';
import { millis } from '../leaves/units.js';
import type { Unmount } from '../leaves/unmount.js';
import { migrationMessage, stateName, statusMessage, verifyReportMessage } from './migration-message.js';
import {
  KEEPALIVE_INTERVAL,
  KEEPALIVE_TIMEOUT,
  PROTO_PATH,
  REQUEST_BYTES_MAX,
  RESPONSE_BYTES_MAX,
  SERVICE_NAME,
  serviceDefinition,
} from './service-definition.js';
import { checkedLimit, migrationRequestOf } from './start-request.js';
import { statusOfError } from './status-error.js';
import { WatchStreams } from './watch-stream.js';
import type { MigrationIdMessage, UnaryMethod, UnaryMethods } from './wire.js';

/** Calls that one connection may have open. */
const CONCURRENT_STREAMS_MAX = 128;
/** How long running calls may go on after `close`. */
const CLOSE_GRACE = millis(1000);
/** Characters; ids are made by daemons and are short. */
const ID_LENGTH_MAX = 128;
const WHAT_LENGTH_MAX = 4096;
const KB = 1000;

interface ControlServerOptions {
  readonly service: MigrationControl;
  readonly status: () => DaemonStatus;
  /** Absent: UNIMPLEMENTED. */
  readonly unmount?: Unmount;
  /** Port 0: any free one. */
  readonly listen: HostPort;
  /** Absent: plain text, on loopback only unless `insecure`. */
  readonly tls?: TlsIdentity | undefined;
  readonly insecure?: boolean | undefined;
  readonly log: LogSink;
  readonly clock?: Clock;
}

export interface ControlServer extends AsyncDisposable {
  /** `host:port` with the port that was bound. */
  readonly address: string;
  readonly port: number;
  /** Ends watch streams, lets running calls finish for a moment, then cuts them off. Idempotent. */
  close(): Promise<void>;
}

type Handlers = {
  readonly [M in UnaryMethod]: (
    request: UnaryMethods[M][0],
  ) => Promise<UnaryMethods[M][1]> | UnaryMethods[M][1];
};

const idOf = ({ migrationId }: MigrationIdMessage): string => {
  if (migrationId === '' || migrationId.length > ID_LENGTH_MAX)
    throw new MigrateFsError('INVALID_ARGUMENT', 'migration_id is empty or too long');
  return migrationId;
};

const whatOf = (what: string): string => {
  if (what === '' || what.length > WHAT_LENGTH_MAX)
    throw new MigrateFsError(
      'INVALID_ARGUMENT',
      'what is empty or too long: give a migration id or an image name',
    );
  return what;
};

const noUnmount: Unmount = () => {
  throw new MigrateFsError('UNIMPLEMENTED', 'this server has no mount');
};

const handlersOf = (
  { service, status, unmount = noUnmount }: ControlServerOptions,
  clock: Clock,
): Handlers => ({
  StartMigration: async (request) =>
    migrationMessage(await service.start(migrationRequestOf(request, clock.wall()))),
  SetNetworkLimit: async (request) =>
    migrationMessage(
      await service.setLimits(idOf(request), { netLimit: checkedLimit('network', request.limitKbPerS) }),
    ),
  SetDiskLimit: async (request) =>
    migrationMessage(
      await service.setLimits(idOf(request), { diskLimit: checkedLimit('disk', request.limitKbPerS) }),
    ),
  QueryProgress: async (request) => {
    const { netRate, writeRate } = await service.get(idOf(request));
    return {
      ...(request.rate !== 'RATE_DISK' && { networkKbPerS: netRate / KB }),
      ...(request.rate !== 'RATE_NETWORK' && { diskKbPerS: writeRate / KB }),
    };
  },
  QueryCompletion: async (request) => {
    const { state } = await service.get(idOf(request));
    return { completed: state === 'completed', state: stateName(state) };
  },
  GetMigration: async (request) => migrationMessage(await service.get(idOf(request))),
  ListMigrations: async () => ({ migrations: (await service.list()).map(migrationMessage) }),
  Pause: async (request) => migrationMessage(await service.pause(idOf(request))),
  Resume: async (request) => migrationMessage(await service.resume(idOf(request))),
  Cancel: async (request) => migrationMessage(await service.cancel(idOf(request))),
  Cutover: async (request) => migrationMessage(await service.cutover(idOf(request))),
  Verify: async ({ what }) => ({ reports: (await service.verify(whatOf(what))).map(verifyReportMessage) }),
  GetStatus: () => statusMessage(status()),
  Unmount: async ({ mountpoint, lazy }) => ({ holders: await unmount({ mountpoint, lazy }) }),
});

const implementationOf = (
  handlers: Handlers,
  watchers: WatchStreams,
  log: LogSink,
): UntypedServiceImplementation => {
  const unary =
    <M extends UnaryMethod>(method: M, handler: Handlers[M]) =>
    (
      call: ServerUnaryCall<UnaryMethods[M][0], UnaryMethods[M][1]>,
      callback: sendUnaryData<UnaryMethods[M][1]>,
    ): void => {
      Promise.resolve()
        .then(() => handler(call.request))
        .then(
          (response) => callback(null, response),
          (error: unknown) => {
            log('debug', 'control call failed', { method, peer: call.getPeer(), err: error });
            callback(statusOfError(error, method, log));
          },
        );
    };
  const implementation: UntypedServiceImplementation = {
    WatchMigration: watchers.serve.bind(watchers),
  };
  for (const method of Object.keys(handlers) as UnaryMethod[])
    implementation[method] = unary(method, handlers[method] as Handlers[typeof method]) as never;
  return implementation;
};

const credentialsOf = (identity: TlsIdentity | undefined): ServerCredentials => {
  if (!identity) return ServerCredentials.createInsecure();
  // The gRPC library has no option for it; no part of the daemon speaks anything older.
  tls.DEFAULT_MIN_VERSION = 'TLSv1.3';
  try {
    return ServerCredentials.createSsl(
      Buffer.from(identity.ca),
      [{ cert_chain: Buffer.from(identity.cert), private_key: Buffer.from(identity.key) }],
      true,
    );
  } catch (error) {
    throw new MigrateFsError('INVALID_ARGUMENT', `the TLS files do not fit: ${(error as Error).message}`, {
      cause: error,
    });
  }
};

const bindError = (address: string, error: Error): MigrateFsError => {
  const remedy = /EADDRINUSE/.test(error.message)
    ? 'it is in use; give another one with --listen'
    : /EACCES/.test(error.message)
      ? 'not permitted; give a port from 1024 up with --listen'
      : /EADDRNOTAVAIL|ENOTFOUND|EAI_AGAIN|[Rr]esolution/.test(error.message)
        ? 'this host has no such address; give one of its own with --listen'
        : error.message.replace(/\s+/g, ' ');
  return new MigrateFsError('FAILED_PRECONDITION', `cannot serve the control port on ${address}: ${remedy}`, {
    cause: error,
  });
};

/**
 * Serves the network API of proto/migratefs.proto with health and reflection.
 * FAILED_PRECONDITION: the address is taken, not ours, or unsafe without certificates. INVALID_ARGUMENT: bad PEMs.
 */
export const serveControl = async (options: ControlServerOptions): Promise<ControlServer> => {
  const { service, log, listen } = options;
  const clock = options.clock ?? systemClock;
  assertSafeListener('control', listen, options);
  const credentials = credentialsOf(options.tls);
  const server = new Server({
    'grpc.max_receive_message_length': REQUEST_BYTES_MAX,
    'grpc.max_send_message_length': RESPONSE_BYTES_MAX,
    'grpc.max_concurrent_streams': CONCURRENT_STREAMS_MAX,
    'grpc.keepalive_time_ms': KEEPALIVE_INTERVAL,
    'grpc.keepalive_timeout_ms': KEEPALIVE_TIMEOUT,
  });
  const watchers = new WatchStreams(service, log);
  server.addService(serviceDefinition, implementationOf(handlersOf(options, clock), watchers, log));
  const health = new HealthImplementation({ '': 'SERVING', [SERVICE_NAME]: 'SERVING' });
  health.addToServer(server);
  // Loaded for itself, because reflection shows the names of fields as they are written in the files.
  const reflected = loadSync([PROTO_PATH, healthProtoPath], { keepCase: true });
  new ReflectionService(reflected).addToServer(server);

  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync(formatHostPort(listen), credentials, (error, bound) =>
      error ? reject(bindError(formatHostPort(listen), error)) : resolve(bound),
    );
  });
  const address = formatHostPort({ host: listen.host, port });
  log('debug', 'control port open', { address, tls: options.tls !== undefined });

  const shutDown = (): Promise<void> =>
    new Promise((resolve) => {
      health.setStatus('', 'NOT_SERVING');
      health.setStatus(SERVICE_NAME, 'NOT_SERVING');
      watchers.close();
      const forget = clock.after(CLOSE_GRACE, () => {
        server.forceShutdown();
        resolve();
      });
      server.tryShutdown(() => {
        forget();
        resolve();
      });
    });
  let closed: Promise<void> | undefined;
  const close = (): Promise<void> => {
    closed ??= shutDown();
    return closed;
  };
  return { address, port, close, [Symbol.asyncDispose]: close };
};
