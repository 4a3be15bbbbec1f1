/** Somebody between a source and its target who reads what passes: knows the token of each stream, and can keep it. */
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { parseHostPort } from '../../src/leaves/host-port.js';
import { encodeFrame, PROTOCOL_VERSION } from '../../src/replica/wire/frame.js';
import { FrameReader } from '../../src/replica/wire/frame-reader.js';
import { joinSockets } from './joined-sockets.js';
import type { Teardown } from './scratch.js';
import { within } from './test-daemon.js';

const ANSWER_MAX_MS = 15_000;

/** What happens to the streams of the source. */
export type StreamFate = 'pass' | 'break' | 'ignore';

export class StreamThief {
  readonly address: string;
  /** Of new connections. */
  fate: StreamFate = 'pass';
  /** That the target has given for the last connection. */
  token: Uint8Array = new Uint8Array();
  /** Streams that the source has asked for. */
  asked = 0;
  readonly #sockets = new Set<Socket>();

  private constructor(server: Server, to: string) {
    this.address = `127.0.0.1:${(server.address() as AddressInfo).port}`;
    server.on('connection', (socket) => this.#forward(socket, to));
  }

  static async start(t: Teardown, to: string): Promise<StreamThief> {
    const server = createServer();
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const thief = new StreamThief(server, to);
    t.teardown(() => {
      for (const socket of thief.#sockets) socket.destroy();
      server.close();
    });
    return thief;
  }

  #forward(socket: Socket, to: string): void {
    const { fate } = this;
    const onward = connect(parseHostPort(to));
    joinSockets(this.#sockets, socket, onward);
    firstFrame(socket, (body) => {
      if (body !== 'streamHello') return true;
      this.asked++;
      if (fate === 'break') socket.resetAndDestroy();
      return fate === 'pass';
    });
    firstFrame(onward, (body, reader) => {
      if (body === 'helloReply') this.token = reader.helloReply.streamToken;
      return true;
    });
    relay(socket, onward);
    relay(onward, socket);
  }
}

const gates = new WeakMap<Socket, (chunk: Buffer) => boolean>();

/** Has `look` decide by the first frame from `socket` whether anything of it is passed on. */
const firstFrame = (
  socket: Socket,
  look: (body: string, frame: { helloReply: { streamToken: Uint8Array } }) => boolean,
): void => {
  const reader = new FrameReader();
  let passes: boolean | undefined;
  gates.set(socket, (chunk) => {
    if (passes === undefined)
      reader.push(chunk, (frame) => {
        passes ??= look(frame.body, frame as never);
      });
    return passes !== false;
  });
};

const relay = (from: Socket, to: Socket): void => {
  from.on('data', (chunk: Buffer) => {
    if (gates.get(from)!(chunk) && !to.write(chunk)) {
      from.pause();
      to.once('drain', () => from.resume());
    }
  });
};

export interface Answer {
  readonly socket: Socket;
  /** Why there is no stream; absent when it was accepted. */
  readonly refusal?: string;
}

/** Asks a data port for a stream, as a source does, and resolves with what it answers. */
export const askForStream = async (
  t: Teardown,
  address: string,
  migrationId: string,
  token: Uint8Array,
): Promise<Answer> => {
  const socket = connect(parseHostPort(address));
  t.teardown(() => socket.destroy());
  socket.on('error', () => undefined);
  await once(socket, 'connect');
  const reader = new FrameReader();
  const answered = new Promise<Answer>((resolve, reject) => {
    socket.on('data', (chunk: Buffer) =>
      reader.push(chunk, (frame) => {
        if (frame.body !== 'streamReply') return reject(new Error(`${frame.body} frame`));
        const { failure } = frame.streamReply;
        resolve(failure ? { socket, refusal: failure.code ?? '' } : { socket });
      }),
    );
    socket.once('close', () => reject(new Error('closed without an answer')));
  });
  const hello = { protocolVersion: PROTOCOL_VERSION, migrationId, token };
  socket.write(Buffer.concat(encodeFrame({ streamHello: hello })));
  const answer = await within(answered, ANSWER_MAX_MS, () => 'no answer to a stream hello');
  socket.removeAllListeners('data');
  socket.resume();
  return answer;
};
