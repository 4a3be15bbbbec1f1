/** A network that can fail: a TCP proxy in front of a data port. */
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { parseHostPort } from '../../src/leaves/host-port.js';
import { joinSockets } from './joined-sockets.js';
import type { Teardown } from './scratch.js';

export class CutProxy {
  readonly address: string;
  /** Sees what comes from whoever connects. */
  onBytes: (chunk: Buffer, connection: number) => void = () => {};
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #carried: number[] = [];
  /** Of the connection that was made last: who connected, and the way onward. */
  #last: readonly [Socket, Socket] | undefined;
  #cut = false;

  private constructor(server: Server, address: string) {
    this.#server = server;
    this.address = address;
  }

  static async start(t: Teardown, to: string): Promise<CutProxy> {
    const server = createServer();
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const proxy = new CutProxy(server, `127.0.0.1:${(server.address() as AddressInfo).port}`);
    server.on('connection', (socket) => proxy.#forward(socket, to));
    t.teardown(() => proxy.close());
    return proxy;
  }

  /** Bytes that came from whoever connected, by connection, in the order in which these were made. */
  get carried(): readonly number[] {
    return this.#carried;
  }

  /** Breaks every connection and refuses new ones. */
  cut(): void {
    this.#cut = true;
    for (const socket of this.#sockets) socket.resetAndDestroy();
  }

  /** The cable is pulled: nothing passes any more, and nobody is told. */
  silence(): void {
    this.#cut = true;
    for (const socket of this.#sockets) {
      socket.unpipe();
      socket.pause();
    }
  }

  /** Lets new connections through again; silent ones break. */
  heal(): void {
    for (const socket of this.#sockets) socket.resetAndDestroy();
    this.#cut = false;
  }

  /** What the far end of the last connection says does not arrive any more; the other direction goes on. */
  holdReplies(): void {
    const [socket, onward] = this.#last!;
    onward.unpipe(socket);
    onward.pause();
  }

  /** It arrives, and goes on to. */
  letReplies(): void {
    const [socket, onward] = this.#last!;
    onward.pipe(socket);
  }

  close(): void {
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
  }

  #forward(socket: Socket, to: string): void {
    if (this.#cut) {
      socket.resetAndDestroy();
      return;
    }
    const onward = connect(parseHostPort(to));
    this.#last = [socket, onward];
    const index = this.#carried.push(0) - 1;
    socket.on('data', (chunk: Buffer) => {
      this.#carried[index]! += chunk.length;
      this.onBytes(chunk, index);
    });
    joinSockets(this.#sockets, socket, onward);
    socket.pipe(onward).pipe(socket);
  }
}
