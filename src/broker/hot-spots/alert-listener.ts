/** The HTTP port that Alertmanager posts to. */
import { createHash, timingSafeEqual } from 'node:crypto';
import type { IncomingMessage, RequestListener, Server, ServerResponse } from 'node:http';
import { createServer } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { MigrateFsError, plainError } from '../../leaves/errors.js';
import type { HostPort } from '../../leaves/host-port.js';
import { formatHostPort } from '../../leaves/host-port.js';
import type { LogSink } from '../../leaves/log-sink.js';
import type { SettingNames } from '../../leaves/setting-names.js';
import type { TlsIdentity } from '../../leaves/tls-identity.js';
import { assertSafeListener } from '../../leaves/tls-identity.js';
import { MiB } from '../../leaves/units.js';

interface AlertListenerOptions {
  /** Port 0: any free one. */
  readonly listen: HostPort;
  /** What is asked for as a bearer token (RFC 6750). */
  readonly token?: string | undefined;
  /** Absent: plain text, on loopback only unless `insecure`. */
  readonly tls?: TlsIdentity | undefined;
  readonly insecure?: boolean | undefined;
  readonly named?: SettingNames | undefined;
  /** Takes a body. INVALID_ARGUMENT: it is malformed. */
  readonly take: (body: string) => void;
  readonly log: LogSink;
}

export interface AlertListener {
  /** `host:port` with the port that was bound. */
  readonly address: string;
  close(): Promise<void>;
}

export const ALERTS_PATH = '/alerts';
/** What anyone who reaches the port could do. */
export const ALERTS_HARM = 'slow migrations down with made-up alerts';
export const BODY_BYTES_MAX = MiB;
const HEADER_BYTES_MAX = 16 * 1024;
const CONNECTIONS_MAX = 64;
const REQUEST_MAX_MS = 10_000;

const digest = (text: string): Buffer => createHash('sha256').update(text).digest();

/** Takes as long for every wrong token. */
const isAllowed = (request: IncomingMessage, token: string | undefined): boolean =>
  token === undefined ||
  timingSafeEqual(digest(request.headers.authorization ?? ''), digest(`Bearer ${token}`));

/** Leaves what is too long unread: destroying the request would take the way for the answer along. */
const bodyOf = (request: IncomingMessage): Promise<string> =>
  new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let length = 0;
    request.on('data', (chunk: Buffer) => {
      length += chunk.length;
      if (length <= BODY_BYTES_MAX) {
        chunks.push(chunk);
        return;
      }
      request.pause();
      reject(new MigrateFsError('RESOURCE_EXHAUSTED', `a message is longer than ${BODY_BYTES_MAX} bytes`));
    });
    request.once('end', () => resolve(Buffer.concat(chunks).toString('utf8')));
    request.once('error', reject);
    request.once('close', () => reject(new MigrateFsError('ABORTED', 'the sender is gone')));
  });

/** HTTP status of an answer to `request`. */
const statusOf = async (
  request: IncomingMessage,
  { token, take, log }: AlertListenerOptions,
): Promise<number> => {
  if (!isAllowed(request, token)) return 401;
  if (request.url?.split('?', 1)[0] !== ALERTS_PATH) return 404;
  if (request.method !== 'POST') return 405;
  // Not known any more once the sender is gone.
  const peer = request.socket.remoteAddress;
  try {
    take(await bodyOf(request));
    return 200;
  } catch (error) {
    const { code, message } = plainError(error);
    log('warn', `an alert message is refused: ${message.split('\n', 1)[0]}`, {
      peer,
    });
    return code === 'INVALID_ARGUMENT' ? 400 : code === 'RESOURCE_EXHAUSTED' ? 413 : 500;
  }
};

const listenerOf =
  (options: AlertListenerOptions): RequestListener =>
  (request: IncomingMessage, response: ServerResponse): void => {
    void statusOf(request, options).then((status) => {
      if (response.destroyed) return;
      // What was not read of a refused request is not read: the connection ends with the answer.
      response.writeHead(status, status === 200 ? {} : { connection: 'close' }).end();
      if (status !== 200) response.once('finish', () => request.destroy());
    });
  };

const serverOf = (options: AlertListenerOptions): Server => {
  const limits = {
    requestTimeout: REQUEST_MAX_MS,
    headersTimeout: REQUEST_MAX_MS,
    maxHeaderSize: HEADER_BYTES_MAX,
  };
  const { tls } = options;
  if (!tls) return createServer(limits, listenerOf(options));
  return createTlsServer(
    { ...limits, ...tls, requestCert: true, rejectUnauthorized: true, minVersion: 'TLSv1.3' },
    listenerOf(options),
  );
};

/**
 * Serves POST /alerts. FAILED_PRECONDITION: the address is taken, not ours, or unsafe without certificates.
 * INVALID_ARGUMENT: bad PEMs.
 */
export const listenForAlerts = async (options: AlertListenerOptions): Promise<AlertListener> => {
  const { listen } = options;
  assertSafeListener('alert', listen, options, ALERTS_HARM);
  let server: Server;
  try {
    server = serverOf(options);
  } catch (error) {
    throw new MigrateFsError('INVALID_ARGUMENT', `the TLS files do not fit: ${(error as Error).message}`, {
      cause: error,
    });
  }
  server.maxConnections = CONNECTIONS_MAX;
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error) =>
      reject(
        new MigrateFsError(
          'FAILED_PRECONDITION',
          `cannot serve the alert port on ${formatHostPort(listen)}: ${error.message}; give another address as alerts.listen of the hot spots`,
          { cause: error },
        ),
      ),
    );
    server.listen(listen.port, listen.host, resolve);
  });
  server.on('error', (error) => options.log('warn', `alert port: ${error.message}`));
  const { port } = server.address() as AddressInfo;
  return {
    address: formatHostPort({ host: listen.host, port }),
    close: async () => {
      const closed = new Promise((resolve) => server.close(resolve));
      server.closeAllConnections();
      await closed;
    },
  };
};
