import assert from 'node:assert/strict';
import { connect as connectTcp, Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { setImmediate as immediate } from 'node:timers/promises';
import { connect as connectTls } from 'node:tls';
import type { Clock } from '../../leaves/clock.js';
import { MigrateFsError } from '../../leaves/errors.js';
import type { TlsIdentity } from '../../leaves/tls-identity.js';
import type { Bytes, Millis } from '../../leaves/units.js';
import { millis } from '../../leaves/units.js';
import type { Frame, FrameProperties } from './frame.js';
import { encodeFrame } from './frame.js';
import { FrameReader } from './frame-reader.js';
import type { PayloadChunks } from './payload.js';
import type { StreamSocket } from './taken-socket.js';
import { detach, exportedKeys, hasUnsent, peerSwitched, stopReading, tellSwitched } from './taken-socket.js';
import { tlsOptions } from './tls-options.js';

/** Without a byte from the peer for this long it is lost. */
const PEER_TIMEOUT_DEFAULT = millis(5_000);
const CONNECT_TIMEOUT_DEFAULT = millis(5_000);
/** A silent sender pings this many times within the timeout of the peer. */
const PINGS_PER_TIMEOUT = 4;
/** No peer is pinged more often than for this one. */
const PEER_TIMEOUT_MIN = millis(100);
/** What was queued before `close` may take this long to leave. */
const CLOSE_LINGER = millis(1_000);
const KEEPALIVE_DELAY = millis(10_000);
/** What was sent may take this long to leave before a take-over, and then the peer to take over as well. */
const TAKE_OVER_TIMEOUT = millis(5_000);

interface PeerConnectionOptions {
  readonly clock: Clock;
  readonly peerTimeout?: Millis | undefined;
}

export interface ConnectOptions extends PeerConnectionOptions {
  readonly host: string;
  readonly port: number;
  readonly tls?: TlsIdentity | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly connectTimeout?: Millis | undefined;
}

/** What a socket can do beyond a duplex stream. */
interface SocketLike {
  readonly remoteAddress?: string | undefined;
  readonly remotePort?: number | undefined;
  setNoDelay?(noDelay: boolean): unknown;
  setKeepAlive?(enable: boolean, delay: number): unknown;
}

type FrameHandler = (frame: Frame, payload: PayloadChunks) => void;

interface DrainWaiter {
  readonly lowWater: number;
  readonly resolve: () => void;
  readonly reject: (reason: MigrateFsError) => void;
}

/**
 * One connection of the block stream, either end: frames out in order, frames in to one handler, and the knowledge
 * whether the peer is alive. Pings are sent and swallowed here.
 */
export class PeerConnection {
  readonly remote: string;
  /** Resolves once, with why the connection ended: UNAVAILABLE for a lost peer. Never rejects. */
  readonly closed: Promise<MigrateFsError>;
  readonly #stream: Duplex;
  readonly #clock: Clock;
  readonly #peerTimeout: Millis;
  #pingInterval: Millis;
  /** Connected from here; the other end is the server. */
  readonly #isClient: boolean;
  readonly #reader = new FrameReader();
  readonly #waiters = new Set<DrainWaiter>();
  #handler: FrameHandler | undefined;
  #paused = false;
  /** Nothing is read any more. */
  #stopped = false;
  /** The last frame has been sent; no ping may follow it. */
  #silent = false;
  #corked = false;
  #reason: MigrateFsError | undefined;
  #ended = false;
  #resolveClosed!: (reason: MigrateFsError) => void;
  #forgetTimer: () => void = () => {};
  #lastSent: Millis;
  #lastReceived: Millis;
  #suspected = false;
  #bytesSent = 0;
  #bytesReceived = 0;
  #framesRejected = 0;

  /** Over a connected stream, which it owns from now on. Nothing is read before `onFrame`. */
  constructor(stream: Duplex, options: PeerConnectionOptions, isClient = false) {
    const socket = stream as SocketLike;
    this.#stream = stream;
    this.#isClient = isClient;
    this.#clock = options.clock;
    this.#peerTimeout = options.peerTimeout ?? PEER_TIMEOUT_DEFAULT;
    // The peer's may be shorter than the one here; until it has said so, the default is taken for it.
    this.#pingInterval = millis(Math.min(this.#peerTimeout, PEER_TIMEOUT_DEFAULT) / PINGS_PER_TIMEOUT);
    this.remote = socket.remoteAddress ? `${socket.remoteAddress}:${socket.remotePort}` : 'peer';
    this.#lastSent = this.#lastReceived = this.#clock.now();
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve;
    });
    socket.setNoDelay?.(true);
    socket.setKeepAlive?.(true, KEEPALIVE_DELAY);
    stream.on('error', (error) => this.#end(streamError(this.remote, error)));
    stream.on('end', () =>
      this.#end(
        this.#lost(this.#reader.midFrame ? 'closed the connection within a frame' : 'closed the connection'),
      ),
    );
    stream.on('close', () => this.#end(this.#lost('closed the connection')));
    this.#checkLiveness(this.#pingInterval);
  }

  /**
   * Connects (and completes the TLS handshake). UNAVAILABLE: refused, unreachable or no answer in time.
   * PERMISSION_DENIED: the certificates do not match. Rejects with the signal's reason when it aborts.
   */
  static connect(options: ConnectOptions): Promise<PeerConnection> {
    const { host, port, tls, clock, signal } = options;
    const where = `${host}:${port}`;
    const timeout = options.connectTimeout ?? CONNECT_TIMEOUT_DEFAULT;
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason as Error);
      const stream = tls ? connectTls({ host, port, ...tlsOptions(tls) }) : connectTcp({ host, port });
      const settle = (): void => {
        forget();
        signal?.removeEventListener('abort', onAbort);
        stream.off('error', onError);
      };
      const fail = (error: Error): void => {
        settle();
        stream.on('error', () => {});
        stream.destroy();
        reject(error);
      };
      const onAbort = (): void => fail(signal?.reason as Error);
      const onError = (error: Error): void => fail(streamError(where, error));
      const forget = clock.after(timeout, () =>
        fail(new MigrateFsError('UNAVAILABLE', `no answer from ${where} within ${timeout} ms`)),
      );
      signal?.addEventListener('abort', onAbort, { once: true });
      stream.once('error', onError);
      stream.once(tls ? 'secureConnect' : 'connect', () => {
        settle();
        resolve(new PeerConnection(stream, options, true));
      });
    });
  }

  /** Closed or closing: nothing can be sent any more. */
  get isClosed(): boolean {
    return this.#reason !== undefined;
  }

  /** Bytes accepted by `send` that the kernel has not taken yet. */
  get queuedBytes(): Bytes {
    return this.#stream.writableLength as Bytes;
  }

  /** Bytes given to `send`, prefixes and headers included. */
  get bytesSent(): Bytes {
    return this.#bytesSent as Bytes;
  }

  get bytesReceived(): Bytes {
    return this.#bytesReceived as Bytes;
  }

  /** 0 or 1: what cannot be understood ends the connection. */
  get framesRejected(): number {
    return this.#framesRejected;
  }

  /**
   * Queues a frame behind those sent before; payload chunks must not change until the frame has left (an ack proves
   * it). On a closed connection it does nothing: `closed` tells. The first frame of an event-loop turn leaves at once,
   * what follows it in that turn leaves together. After `streamHello` and `streamReply` nothing more may be sent.
   */
  send(frame: FrameProperties, payload?: PayloadChunks): void {
    if (this.#reason) return;
    assert(!this.#silent, 'a frame after the last one');
    this.#silent = Boolean(frame.streamHello || frame.streamReply);
    const buffers = encodeFrame(frame.hello || frame.helloReply ? this.#withTimeout(frame) : frame, payload);
    const first = !this.#corked;
    const stream = this.#stream;
    stream.cork();
    for (let i = 0; i < buffers.length; i++) {
      const buffer = buffers[i]!;
      this.#bytesSent += buffer.length;
      if (i === buffers.length - 1) stream.write(buffer, this.#onWritten);
      else stream.write(buffer);
    }
    stream.uncork();
    this.#lastSent = this.#clock.now();
    if (!first) return;
    this.#corked = true;
    stream.cork();
    setImmediate(() => {
      this.#corked = false;
      stream.uncork();
    });
  }

  /** Resolves when at most `lowWater` bytes are queued; rejects with the reason when the connection has closed. */
  drained(lowWater: Bytes): Promise<void> {
    if (this.#reason) return Promise.reject(this.#reason);
    if (this.#stream.writableLength <= lowWater) return Promise.resolve();
    return new Promise((resolve, reject) => this.#waiters.add({ lowWater, resolve, reject }));
  }

  /**
   * Hands every frame from now on to `handler` (one at a time; a later call replaces it) and starts reading. A
   * `MigrateFsError` thrown by the handler says that the frame is not acceptable and ends the connection.
   */
  onFrame(handler: FrameHandler): void {
    const start = this.#handler === undefined;
    this.#handler = handler;
    if (!start) return;
    this.#lastReceived = this.#clock.now();
    this.#stream.on('data', (chunk: Buffer) => this.#receive(chunk));
    if (this.#paused) this.#stream.pause();
  }

  /** Stops reading; what was read already is still handed over. A paused peer is not watched for life. */
  pause(): void {
    this.#paused = true;
    this.#stream.pause();
  }

  resume(): void {
    if (!this.#paused || this.#stopped) return;
    this.#paused = false;
    this.#lastReceived = this.#clock.now();
    if (this.#handler) this.#stream.resume();
  }

  /** Reads nothing more, for good: what comes from now on stays in the kernel, for whoever takes the socket over. */
  stopReading(): void {
    this.pause();
    this.#stopped = true;
    assert(this.#stream instanceof Socket);
    stopReading(this.#stream);
  }

  /**
   * Takes the socket out of this connection, which is over with that (`closed`: CANCELLED): stops reading at once, lets
   * what was sent leave, and gives the descriptor, which waits in calls and does not survive exec, with nothing of TLS
   * on it any more. The server calls it behind its last frame, the client in the turn in which it gets that frame; what
   * either sends once it has the descriptor, and no byte else, the other receives from its own. Keys are exported from
   * the TLS session under `label`; without TLS there are none. UNAVAILABLE: the connection is gone, or the client has
   * not taken over in time. INVALID_ARGUMENT: the peer sent more. Rejects with the signal's reason when it aborts.
   */
  async takeOver(label: string, signal?: AbortSignal): Promise<StreamSocket> {
    if (this.#reason || this.#stream.destroyed)
      throw new MigrateFsError('UNAVAILABLE', `${this.remote} is gone`, { cause: this.#reason });
    this.stopReading();
    this.#silent = true;
    this.#handler = (late) => {
      throw new MigrateFsError('INVALID_ARGUMENT', `${late.body} frame after the last one`);
    };
    const limit = new AbortController();
    const forget = this.#clock.after(TAKE_OVER_TIMEOUT, () =>
      limit.abort(this.#lost(`has not taken over within ${TAKE_OVER_TIMEOUT} ms`)),
    );
    const ended = signal ? AbortSignal.any([signal, limit.signal]) : limit.signal;
    const onAbort = (): void => this.destroy();
    ended.addEventListener('abort', onAbort);
    try {
      return await this.#takenOver(this.#stream as Socket, label, ended);
    } catch (error) {
      this.destroy(error instanceof MigrateFsError ? error : undefined);
      throw ended.aborted ? ended.reason : error;
    } finally {
      forget();
      ended.removeEventListener('abort', onAbort);
    }
  }

  async #takenOver(socket: Socket, label: string, signal: AbortSignal): Promise<StreamSocket> {
    signal.throwIfAborted();
    await this.drained(0 as Bytes);
    // At least once around the event loop: what TLS has read already is handed over by then.
    do {
      await immediate();
      if (this.#reason) throw this.#reason;
    } while (hasUnsent(socket));
    if (this.#reader.midFrame || socket.readableLength > 0) {
      this.#framesRejected++;
      throw new MigrateFsError('INVALID_ARGUMENT', `${this.remote} sent more after the last frame`);
    }
    const keys = exportedKeys(socket, label, this.#isClient);
    this.#begin(new MigrateFsError('CANCELLED', 'taken over'));
    const fd = await detach(socket);
    const switched = this.#isClient ? tellSwitched(fd, signal) : await peerSwitched(fd, signal);
    return { fd: switched, keys };
  }

  /** Lets what is queued leave (bounded), then closes. Idempotent. */
  close(reason = new MigrateFsError('CANCELLED', 'connection closed here')): void {
    if (this.#reason) return;
    this.#begin(reason);
    const stream = this.#stream;
    const forget = this.#clock.after(CLOSE_LINGER, () => stream.destroy());
    stream.once('close', forget);
    stream.end(() => stream.destroy());
  }

  /** Closes at once; what is queued is lost. */
  destroy(reason = new MigrateFsError('CANCELLED', 'connection closed here')): void {
    this.#end(reason);
  }

  readonly #onWritten = (): void => {
    if (this.#waiters.size === 0) return;
    const queued = this.#stream.writableLength;
    for (const waiter of this.#waiters) {
      if (queued > waiter.lowWater) continue;
      this.#waiters.delete(waiter);
      waiter.resolve();
    }
  };

  #receive(chunk: Buffer): void {
    this.#bytesReceived += chunk.length;
    this.#lastReceived = this.#clock.now();
    if (this.#reason) return;
    try {
      this.#reader.push(chunk, (frame, payload) => {
        assert(this.#handler);
        if (this.#reason) return;
        if (frame.body === 'hello') this.#suit(frame.hello.peerTimeoutMs);
        else if (frame.body === 'helloReply') this.#suit(frame.helloReply.peerTimeoutMs);
        if (frame.body !== 'ping') this.#handler(frame, payload);
      });
    } catch (error) {
      if (!(error instanceof MigrateFsError)) throw error;
      this.#framesRejected++;
      this.#end(error);
    }
  }

  /** A hello or its reply, with how often this end wants to hear of the peer. */
  #withTimeout(frame: FrameProperties): FrameProperties {
    const peerTimeoutMs = this.#peerTimeout;
    if (frame.hello) return { ...frame, hello: { ...frame.hello, peerTimeoutMs } };
    return { ...frame, helloReply: { ...frame.helloReply, peerTimeoutMs } };
  }

  /** Pings often enough for a peer that waits for `timeout`; 0: it did not say. */
  #suit(timeout: number): void {
    if (timeout === 0) return;
    const shorter = millis(Math.max(timeout, PEER_TIMEOUT_MIN) / PINGS_PER_TIMEOUT);
    if (shorter >= this.#pingInterval) return;
    this.#pingInterval = shorter;
    this.#forgetTimer();
    this.#checkLiveness(shorter);
  }

  /** Pings after silence here; ends the connection after silence there. */
  #checkLiveness(delay: Millis): void {
    this.#forgetTimer = this.#clock.after(delay, () => {
      const now = this.#clock.now();
      if (!this.#silent && now - this.#lastSent >= this.#pingInterval) this.send({ ping: {} });
      const watched = this.#handler !== undefined && !this.#paused;
      if (!watched || now - this.#lastReceived <= this.#peerTimeout) {
        this.#suspected = false;
        return this.#checkLiveness(this.#pingInterval);
      }
      if (this.#suspected) return this.#end(this.#lost(`was silent for ${this.#peerTimeout} ms`));
      // Once more around the event loop: if this process was stopped for long, the bytes are in the socket.
      this.#suspected = true;
      this.#checkLiveness(millis(0));
    });
  }

  #lost(what: string): MigrateFsError {
    return new MigrateFsError('UNAVAILABLE', `${this.remote} ${what}`);
  }

  /** Settles the reason; the first one counts. */
  #begin(reason: MigrateFsError): void {
    if (this.#reason) return;
    this.#reason = reason;
    this.#forgetTimer();
    for (const waiter of this.#waiters) waiter.reject(reason);
    this.#waiters.clear();
  }

  #end(reason: MigrateFsError): void {
    this.#begin(reason);
    if (this.#ended) return;
    this.#ended = true;
    this.#stream.destroy();
    this.#resolveClosed(this.#reason ?? reason);
  }
}

const streamError = (where: string, error: Error): MigrateFsError => {
  const code = (error as NodeJS.ErrnoException).code ?? '';
  const certificate = /^(ERR_SSL|ERR_TLS|CERT_|UNABLE_TO_|DEPTH_ZERO|SELF_SIGNED)/.test(code);
  const message = error instanceof AggregateError ? `${error.errors[0]?.message ?? code}` : error.message;
  return new MigrateFsError(certificate ? 'PERMISSION_DENIED' : 'UNAVAILABLE', `${where}: ${message}`, {
    cause: error,
  });
};
