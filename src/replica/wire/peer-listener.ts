import type { AddressInfo, Server, Socket } from 'node:net';
import { createServer as createTcpServer } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { createServer as createTlsServer } from 'node:tls';
import type { Clock } from '../../leaves/clock.js';
import { MigrateFsError } from '../../leaves/errors.js';
import type { Role } from '../../leaves/role.js';
import { certificateRole } from '../../leaves/role.js';
import type { TlsIdentity } from '../../leaves/tls-identity.js';
import type { Millis } from '../../leaves/units.js';
import { millis } from '../../leaves/units.js';
import type { migratefs } from './generated/data.js';
import { PeerConnection } from './peer-connection.js';

import { tlsOptions } from './tls-options.js';

/** Connections that have not said hello yet; one more is dropped. */
const UNGREETED_MAX = 64;
/** From the TCP connection to the hello frame, the TLS handshake included. */
const HELLO_TIMEOUT_DEFAULT = millis(5_000);

/** Whose certificates may send images. */
const SENDERS: readonly Role[] = ['admin', 'peer'];

export interface ListenOptions {
  readonly host: string;
  /** 0: any free port. */
  readonly port: number;
  readonly tls?: TlsIdentity | undefined;
  readonly clock: Clock;
  readonly peerTimeout?: Millis | undefined;
  readonly helloTimeout?: Millis | undefined;
  /** Gets each connection whose first frame was a hello, reading paused; it sets `onFrame` and resumes. */
  readonly onHello: (connection: PeerConnection, hello: migratefs.data.Hello) => void;
  /**
   * Gets each connection whose first frame was a stream hello, nothing read behind it: to `acceptStream` or
   * `refuseStream`, within what is left of the time for a hello. Without it such a connection is dropped.
   */
  readonly onStream?: ((connection: PeerConnection, hello: migratefs.data.StreamHello) => void) | undefined;
  readonly log: (level: 'info' | 'warn', message: string, fields?: object) => void;
}

/** Accepts peers on the data port. */
export class PeerListener {
  readonly #server: Server;
  readonly #options: ListenOptions;
  readonly #ungreeted = new Set<Socket>();
  readonly #connections = new Set<PeerConnection>();
  #rejected = 0;

  private constructor(options: ListenOptions) {
    this.#options = options;
    const timeout = options.helloTimeout ?? HELLO_TIMEOUT_DEFAULT;
    if (options.tls) {
      const server = createTlsServer({
        ...tlsOptions(options.tls),
        requestCert: true,
        handshakeTimeout: timeout,
      });
      const sockets = new Map<string, Socket>();
      const keyOf = (socket: Socket): string => `${socket.remoteAddress} ${socket.remotePort}`;
      server.on('connection', (socket: Socket) => {
        if (!this.#admit(socket)) return;
        const key = keyOf(socket);
        sockets.set(key, socket);
        socket.once('close', () => sockets.delete(key));
      });
      server.on('secureConnection', (secure: TLSSocket) => {
        const raw = sockets.get(keyOf(secure));
        const role = certificateRole(secure.getPeerCertificate());
        const welcome = role !== undefined && SENDERS.includes(role);
        if (!welcome)
          options.log('warn', 'a certificate that is no daemon was refused', {
            peer: secure.remoteAddress,
            role,
          });
        if (raw && welcome) this.#greet(secure, raw);
        else secure.destroy();
      });
      server.on('tlsClientError', (error, secure) => {
        options.log('warn', 'TLS handshake refused', { peer: secure.remoteAddress, error: error.message });
        secure.destroy();
        sockets.get(keyOf(secure))?.destroy();
      });
      this.#server = server;
    } else {
      this.#server = createTcpServer((socket) => {
        if (this.#admit(socket)) this.#greet(socket, socket);
      });
    }
  }

  /** Resolves when connections are accepted. UNAVAILABLE: the address cannot be listened on. */
  static listen(options: ListenOptions): Promise<PeerListener> {
    const listener = new PeerListener(options);
    const server = listener.#server;
    return new Promise((resolve, reject) => {
      server.once('error', (error) =>
        reject(
          new MigrateFsError(
            'UNAVAILABLE',
            (error as NodeJS.ErrnoException).code === 'EADDRINUSE'
              ? `cannot serve the data port on ${options.host}:${options.port}: it is in use; give another one with --data`
              : `cannot serve the data port on ${options.host}:${options.port}: ${error.message}; give another address with --data`,
            { cause: error },
          ),
        ),
      );
      server.listen({ host: options.host, port: options.port }, () => {
        server.on('error', (error) => options.log('warn', 'data port', { error: error.message }));
        resolve(listener);
      });
    });
  }

  /** Where it listens, as `host:port`. */
  get address(): string {
    const { address, family, port } = this.#server.address() as AddressInfo;
    return family === 'IPv6' ? `[${address}]:${port}` : `${address}:${port}`;
  }

  /** Connections closed because of what they sent. */
  get framesRejected(): number {
    let rejected = this.#rejected;
    for (const connection of this.#connections) rejected += connection.framesRejected;
    return rejected;
  }

  /** Stops accepting and drops every connection it handed out that is still open. */
  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    for (const socket of this.#ungreeted) socket.destroy();
    const reason = new MigrateFsError('UNAVAILABLE', 'the daemon is stopping');
    for (const connection of this.#connections) connection.close(reason);
    await closed;
  }

  #admit(socket: Socket): boolean {
    if (this.#ungreeted.size >= UNGREETED_MAX) {
      socket.destroy();
      this.#options.log('warn', 'too many connections without a hello', { peer: socket.remoteAddress });
      return false;
    }
    this.#ungreeted.add(socket);
    socket.once('close', () => this.#ungreeted.delete(socket));
    return true;
  }

  #greet(socket: Socket, raw: Socket): void {
    const { clock, peerTimeout, helloTimeout, onHello, onStream, log } = this.#options;
    const connection = new PeerConnection(socket, { clock, peerTimeout });
    this.#connections.add(connection);
    const forget = clock.after(helloTimeout ?? HELLO_TIMEOUT_DEFAULT, () =>
      connection.destroy(new MigrateFsError('DEADLINE_EXCEEDED', `no hello from ${connection.remote}`)),
    );
    void connection.closed.then((reason) => {
      forget();
      this.#ungreeted.delete(raw);
      this.#connections.delete(connection);
      this.#rejected += connection.framesRejected;
      if (connection.framesRejected > 0)
        log('warn', 'connection closed: unacceptable frame', {
          peer: connection.remote,
          error: reason.message,
          code: reason.code,
        });
    });
    connection.onFrame((frame) => {
      if (frame.body === 'streamHello' && onStream) {
        // It stays among the ungreeted until it is taken over: what it brings is a token to be looked at.
        connection.stopReading();
        connection.onFrame((early) => {
          throw new MigrateFsError('INVALID_ARGUMENT', `${early.body} frame before the stream reply`);
        });
        return onStream(connection, frame.streamHello);
      }
      if (frame.body !== 'hello')
        throw new MigrateFsError('INVALID_ARGUMENT', `${frame.body} frame before hello`);
      forget();
      this.#ungreeted.delete(raw);
      connection.pause();
      connection.onFrame((early) => {
        throw new MigrateFsError('INVALID_ARGUMENT', `${early.body} frame before the hello reply`);
      });
      onHello(connection, frame.hello);
    });
  }
}
