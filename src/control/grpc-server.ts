/** A gRPC server as every process of the program has one: checked address, certificates, health, reflection, an end. */
import tls from 'node:tls';
import type { ServerUnaryCall, sendUnaryData } from '@grpc/grpc-js';
import { Server, ServerCredentials } from '@grpc/grpc-js';
import type { Clock } from '../leaves/clock.js';
import { systemClock } from '../leaves/clock.js';
import { MigrateFsError } from '../leaves/errors.js';
import type { HostPort } from '../leaves/host-port.js';
import { formatHostPort } from '../leaves/host-port.js';
import type { LogSink } from '../leaves/log-sink.js';
import type { Role } from '../leaves/role.js';
import type { SettingNames } from '../leaves/setting-names.js';
import { FLAG_NAMES } from '../leaves/setting-names.js';
import type { TlsIdentity } from '../leaves/tls-identity.js';
import { assertSafeListener } from '../leaves/tls-identity.js';
import { millis } from '../leaves/units.js';
import type { ServedService } from './deferred-service.js';
import { HealthStates, reflectionServices } from './discovery.js';
import { roleGate } from './role-gate.js';
import { callerRole } from './roles.js';
import {
  KEEPALIVE_INTERVAL,
  KEEPALIVE_TIMEOUT,
  REQUEST_BYTES_MAX,
  RESPONSE_BYTES_MAX,
} from './service-definition.js';
import { statusOfError } from './status-error.js';

/** Calls that one connection may have open. */
const CONCURRENT_STREAMS_MAX = 128;
/** How long running calls may go on after `close`. */
const CLOSE_GRACE = millis(1000);

/** Where a server listens, and how it is protected. */
export interface ListenerOptions {
  /** Port 0: any free one. */
  readonly listen: HostPort;
  /** Absent: plain text, on loopback only unless `insecure`. */
  readonly tls?: TlsIdentity | undefined;
  readonly insecure?: boolean | undefined;
  /** Absent: it is told by flags. */
  readonly named?: SettingNames;
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

interface NamedService extends ServedService {
  /** Full name, for health. */
  readonly name: string;
}

interface GrpcServerOptions extends ListenerOptions {
  readonly services: readonly NamedService[];
  /** Files that reflection shows. */
  readonly protoPaths: readonly string[];
  /** Ends the open streams, because they would outlast any grace. */
  readonly endStreams: () => void;
}

/** A handler of one unary method as the library wants it; failures become a status, and a line in the log. */
export const unaryHandler =
  <Request, Response>(
    method: string,
    handler: (request: Request, role: Role) => Promise<Response> | Response,
    log: LogSink,
    tls = false,
  ) =>
  (call: ServerUnaryCall<Request, Response>, callback: sendUnaryData<Response>): void => {
    Promise.resolve()
      .then(() => handler(call.request, callerRole(call.getAuthContext(), tls) ?? 'peer'))
      .then(
        (response) => callback(null, response),
        (error: unknown) => {
          log('debug', 'control call failed', { method, peer: call.getPeer(), err: error });
          callback(statusOfError(error, method, log));
        },
      );
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

const bindError = (address: string, setting: string, error: Error): MigrateFsError => {
  const remedy = /EADDRINUSE/.test(error.message)
    ? `it is in use; give another one with ${setting}`
    : /EACCES/.test(error.message)
      ? `not permitted; give a port from 1024 up with ${setting}`
      : /EADDRNOTAVAIL|ENOTFOUND|EAI_AGAIN|[Rr]esolution/.test(error.message)
        ? `this host has no such address; give one of its own with ${setting}`
        : error.message.replace(/\s+/g, ' ');
  return new MigrateFsError('FAILED_PRECONDITION', `cannot serve the control port on ${address}: ${remedy}`, {
    cause: error,
  });
};

/**
 * Serves `services` with health and reflection.
 * FAILED_PRECONDITION: the address is taken, not ours, or unsafe without certificates. INVALID_ARGUMENT: bad PEMs.
 */
export const serveGrpc = async (options: GrpcServerOptions): Promise<ControlServer> => {
  const { services, protoPaths, endStreams, log, listen, named = FLAG_NAMES } = options;
  const clock = options.clock ?? systemClock;
  assertSafeListener('control', listen, options);
  const credentials = credentialsOf(options.tls);
  const server = new Server({
    'grpc.max_receive_message_length': REQUEST_BYTES_MAX,
    'grpc.max_send_message_length': RESPONSE_BYTES_MAX,
    'grpc.max_concurrent_streams': CONCURRENT_STREAMS_MAX,
    'grpc.keepalive_time_ms': KEEPALIVE_INTERVAL,
    'grpc.keepalive_timeout_ms': KEEPALIVE_TIMEOUT,
    interceptors: [roleGate(options.tls !== undefined, log)],
  });
  const names = ['', ...services.map(({ name }) => name)];
  for (const { definition, implementation } of services) server.addService(definition, implementation);
  const health = new HealthStates(names);
  for (const { definition, implementation } of [health.service, ...reflectionServices(protoPaths)])
    server.addService(definition, implementation);

  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync(formatHostPort(listen), credentials, (error, bound) =>
      error ? reject(bindError(formatHostPort(listen), named.listen, error)) : resolve(bound),
    );
  });
  const address = formatHostPort({ host: listen.host, port });
  log('debug', 'control port open', { address, tls: options.tls !== undefined });

  const shutDown = (): Promise<void> =>
    new Promise((resolve) => {
      health.notServing();
      endStreams();
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
