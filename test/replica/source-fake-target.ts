/** A target that does what a test wants: it accepts the hello and acknowledges what it is told to. */
import { systemClock } from '../../src/leaves/clock.js';
import type { Frame, FrameProperties } from '../../src/replica/wire/frame.js';
import { PROTOCOL_VERSION } from '../../src/replica/wire/frame.js';
import type { migratefs } from '../../src/replica/wire/generated/data.js';
import { payloadLength } from '../../src/replica/wire/payload.js';
import type { PeerConnection } from '../../src/replica/wire/peer-connection.js';
import { PeerListener } from '../../src/replica/wire/peer-listener.js';
import type { Teardown } from '../support/scratch.js';

type Reply = migratefs.data.HelloReply.$Properties;

export class FakeTarget {
  readonly frames: Frame[] = [];
  /** Frames that are not acknowledged, for now. */
  holds: (frame: Frame) => boolean = () => false;
  /** Sees each frame, and the length of its payload. */
  onFrame: (frame: Frame, length: number) => void = () => undefined;
  /** What hello is answered with, and what follows at once. */
  onHello: (hello: migratefs.data.Hello) => { reply?: Reply; next?: FrameProperties[] } = () => ({});
  readonly #listener: PeerListener;
  #connection: PeerConnection | undefined;
  #held: number[] = [];

  private constructor(listener: PeerListener) {
    this.#listener = listener;
  }

  static async open(t: Teardown): Promise<FakeTarget> {
    let target: FakeTarget | undefined;
    const listener = await PeerListener.listen({
      host: '127.0.0.1',
      port: 0,
      clock: systemClock,
      onHello: (connection, hello) => target!.#serve(connection, hello),
      log: () => undefined,
    });
    const opened = new FakeTarget(listener);
    target = opened;
    t.teardown(() => listener.close());
    return opened;
  }

  get address(): string {
    return this.#listener.address;
  }

  send(frame: FrameProperties): void {
    this.#connection?.send(frame);
  }

  close(): void {
    this.#connection?.close();
  }

  /** Acknowledges what was held, and holds nothing any more. */
  release(): void {
    this.holds = () => false;
    if (this.#held.length > 0) this.send({ ack: { seqs: this.#held } });
    this.#held = [];
  }

  #serve(connection: PeerConnection, hello: migratefs.data.Hello): void {
    this.#connection = connection;
    this.#held = [];
    const { reply = {}, next = [] } = this.onHello(hello);
    const targetInstance = 'fake';
    connection.send({ helloReply: { protocolVersion: PROTOCOL_VERSION, targetInstance, ...reply } });
    for (const frame of next) connection.send(frame);
    connection.onFrame((frame, payload) => {
      this.frames.push(frame);
      this.onFrame(frame, payloadLength(payload));
      if (frame.body === 'discard') connection.send({ discarded: {} });
      else if (frame.body === 'digestRequest') return;
      else if (frame.seq > 0 && this.holds(frame)) this.#held.push(frame.seq);
      else if (frame.seq > 0) connection.send({ ack: { seqs: [frame.seq] } });
    });
    connection.resume();
  }
}
