import { createSecureContext } from 'node:tls';
import type { MethodDefinition, ServiceError } from '@grpc/grpc-js';
import { Client, credentials, Metadata } from '@grpc/grpc-js';
import type { Clock } from '../leaves/clock.js';
import { systemClock } from '../leaves/clock.js';
import { MigrateFsError } from '../leaves/errors.js';
import type { HostPort } from '../leaves/host-port.js';
import { formatHostPort } from '../leaves/host-port.js';
import type { TlsIdentity } from '../leaves/tls-identity.js';
import type { Millis } from '../leaves/units.js';
import {
  KEEPALIVE_INTERVAL,
  KEEPALIVE_TIMEOUT,
  REQUEST_BYTES_MAX,
  RESPONSE_BYTES_MAX,
} from './service-definition.js';
import type { ServerKind } from './status-error.js';
import { errorOfStatus } from './status-error.js';

/** Milliseconds. */
const RECONNECT_BACKOFF_MAX = 5_000;

export interface ChannelOptions {
  readonly server: HostPort;
  readonly tls?: TlsIdentity | undefined;
  readonly clock?: Clock;
}

const credentialsOf = (identity: TlsIdentity | undefined) => {
  if (!identity) return credentials.createInsecure();
  try {
    return credentials.createFromSecureContext(createSecureContext({ ...identity, minVersion: 'TLSv1.3' }));
  } catch (error) {
    throw new MigrateFsError('INVALID_ARGUMENT', `the TLS files do not fit: ${(error as Error).message}`, {
      cause: error,
    });
  }
};

/** A connection to one server, made with the first call; every failure is a `MigrateFsError`. */
export class GrpcChannel implements Disposable {
  /** `host:port`. */
  readonly server: string;
  readonly #client: Client;
  readonly #clock: Clock;
  readonly #kind: ServerKind;

  constructor({ server, tls, clock = systemClock }: ChannelOptions, kind: ServerKind) {
    this.server = formatHostPort(server);
    this.#clock = clock;
    this.#kind = kind;
    this.#client = new Client(this.server, credentialsOf(tls), {
      'grpc.max_receive_message_length': RESPONSE_BYTES_MAX,
      'grpc.max_send_message_length': REQUEST_BYTES_MAX,
      'grpc.keepalive_time_ms': KEEPALIVE_INTERVAL,
      'grpc.keepalive_timeout_ms': KEEPALIVE_TIMEOUT,
      'grpc.keepalive_permit_without_calls': 0,
      // The library's own would keep a server that is back unreachable for up to two minutes.
      'grpc.max_reconnect_backoff_ms': RECONNECT_BACKOFF_MAX,
      // Servers are addressed directly; a proxy of the environment is meant for the web.
      'grpc.enable_http_proxy': 0,
    });
  }

  call(
    method: MethodDefinition<object, object>,
    request: object,
    timeout: Millis,
    signal?: AbortSignal,
  ): Promise<object> {
    const { path, requestSerialize, responseDeserialize } = method;
    return new Promise((resolve, reject) => {
      const call = this.#client.makeUnaryRequest(
        path,
        requestSerialize,
        responseDeserialize,
        request,
        new Metadata(),
        { deadline: new Date(this.#clock.wall() + timeout) },
        (error, response) => {
          signal?.removeEventListener('abort', onAbort);
          if (error) reject(errorOfStatus(error, this.server, this.#kind));
          else resolve(response as object);
        },
      );
      const onAbort = (): void => call.cancel();
      signal?.addEventListener('abort', onAbort, { once: true });
      if (signal?.aborted) onAbort();
    });
  }

  /** The messages of a stream; aborting `signal` ends it quietly. */
  async *stream(
    method: MethodDefinition<object, object>,
    request: object,
    signal?: AbortSignal,
  ): AsyncGenerator<object, void, void> {
    const { path, requestSerialize, responseDeserialize } = method;
    const call = this.#client.makeServerStreamRequest(
      path,
      requestSerialize,
      responseDeserialize,
      request,
      new Metadata(),
    );
    const onAbort = (): void => call.cancel();
    if (signal?.aborted) call.cancel();
    signal?.addEventListener('abort', onAbort, { once: true });
    try {
      for await (const message of call) yield message as object;
    } catch (error) {
      if (signal?.aborted) return;
      throw error instanceof MigrateFsError
        ? error
        : errorOfStatus(error as ServiceError, this.server, this.#kind);
    } finally {
      signal?.removeEventListener('abort', onAbort);
      call.cancel();
    }
  }

  [Symbol.dispose](): void {
    this.#client.close();
  }
}
