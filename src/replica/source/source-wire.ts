import type { Clock } from '../../leaves/clock.js';
import type { ErrorCode } from '../../leaves/errors.js';
import { MigrateFsError } from '../../leaves/errors.js';
import type { Millis } from '../../leaves/units.js';
import { millis } from '../../leaves/units.js';
import type { Frame, FrameProperties } from '../wire/frame.js';
import type { migratefs } from '../wire/generated/data.js';
import type { PeerConnection } from '../wire/peer-connection.js';
import { InFlight } from './in-flight.js';
import type { BulkPort, Change, Outcome, Settled, WirePort } from './ports.js';
import type { StreamLink } from './stream-link.js';

/** What the target says by itself, beside acknowledging. */
export interface WireEvents {
  /** The target asks for the images: a guest wrote there. */
  cutoverRequested(): void;
  cutoverTaken(): void;
  /** A frame did not take effect, or the target has given the migration up. */
  failed(error: MigrateFsError): void;
}

/** `zero`: the range is known to read as zeroes; then there is no digest. */
export interface RemoteDigest {
  readonly sha256: Uint8Array;
  readonly zero: boolean;
}

/** From the end of the stream to that of the connection. */
const STREAM_LOST_DELAY = millis(300);

interface DigestWaiter {
  resolve(digest: RemoteDigest | null): void;
  reject(error: Error): void;
}

/** The migration's side of its connection to the target: numbers what is sent, knows what is not acknowledged. */
export class SourceWire implements WirePort {
  readonly inFlight = new InFlight();
  readonly #events: WireEvents;
  /** When what a guest waits for was sent, by sequence number: the oldest first. */
  readonly #awaited = new Map<number, Millis>();
  readonly #clock: Clock;
  readonly #digests = new Map<number, DigestWaiter>();
  #connection: PeerConnection | null = null;
  #stream: StreamLink | null = null;
  #inBulk = false;
  #laneOldest = { count: -1, since: 0 };
  #syncOldest = { sequence: 0, since: 0 };
  #seq = 0;
  #lastAck = 0;

  constructor(clock: Clock, events: WireEvents) {
    this.#clock = clock;
    this.#events = events;
  }

  get open(): boolean {
    return this.#connection !== null;
  }

  /** Over a connection on which hello was accepted. */
  attach(connection: PeerConnection): void {
    this.#connection = connection;
    connection.onFrame((frame) => {
      if (this.#connection === connection) this.#receive(frame);
    });
  }

  /** The stream beside the connection; breaks with it. */
  get stream(): StreamLink | null {
    return this.#stream;
  }

  /** Beside the connection that is attached; a stream that breaks takes it along. */
  attachStream(stream: StreamLink): void {
    this.#stream = stream;
    void stream.closed.then((reason) => {
      // A target that gives the migration up says so over the connection, at the same time.
      this.#clock.after(STREAM_LOST_DELAY, () => {
        if (this.#stream === stream)
          this.drop(new MigrateFsError('UNAVAILABLE', `the stream broke: ${reason}`));
      });
    });
  }

  /** Nothing goes over the stream any more; the connection stays. */
  closeStream(): void {
    const stream = this.#stream;
    this.#stream = null;
    this.#inBulk = false;
    stream?.close();
  }

  get bulk(): BulkPort | null {
    return this.#inBulk ? this.#stream : null;
  }

  /**
   * Copies, and what has to be in order with them, go over the stream, if there is one. Only while nothing is mirrored;
   * waits until nothing is in flight on the connection. Rejects with the signal's reason.
   */
  async beginBulk(signal: AbortSignal): Promise<void> {
    if (!this.#stream || this.#inBulk) return;
    await this.inFlight.drained(signal);
    signal.throwIfAborted();
    this.#inBulk = this.#stream !== null;
  }

  /** Everything goes over the connection again, once nothing is in flight on the stream. Rejects as `beginBulk`. */
  async endBulk(signal: AbortSignal): Promise<void> {
    if (!this.#inBulk) return;
    await this.#stream?.copiesDrained(signal);
    signal.throwIfAborted();
    this.#inBulk = false;
  }

  /** Forgets the connection and settles everything unacknowledged as lost. Returns it, still to be closed. */
  detach(): PeerConnection | null {
    const connection = this.#connection;
    this.#connection = null;
    this.closeStream();
    this.inFlight.lose();
    this.#awaited.clear();
    for (const waiter of [...this.#digests.values()]) waiter.resolve(null);
    this.#digests.clear();
    return connection;
  }

  isOver(connection: PeerConnection): boolean {
    return this.#connection === connection;
  }

  /** Ends the connection, as if the peer had been lost. */
  drop(reason: MigrateFsError): void {
    this.#connection?.destroy(reason);
  }

  /**
   * The stream has broken, and the connection is about to: the target may still be applying what came over the stream, so
   * nothing may overtake it.
   */
  get #isBroken(): boolean {
    return this.#stream?.isClosed ?? false;
  }

  send(change: Change, settled: Settled): void {
    if (!this.#connection || this.#isBroken) {
      settled('lost');
      return;
    }
    if (this.#inBulk && this.#stream && change.kind === 'resize') {
      this.#stream.resize(change.image, change.size, settled);
      return;
    }
    const seq = ++this.#seq;
    this.inFlight.add(seq, settled);
    if (guestWaits(change)) this.#awaited.set(seq, this.#clock.now());
    if (change.kind === 'data') this.#connection.send({ seq, ...bodyOf(change) }, [change.payload]);
    else this.#connection.send({ seq, ...bodyOf(change) });
  }

  /**
   * SHA-256 of a range on the target (without what lies past the end of the file there) after everything sent before;
   * null when the connection breaks. Rejects when the target cannot read it.
   */
  digest(image: number, offset: number, length: number, acceptZero: boolean): Promise<RemoteDigest | null> {
    return new Promise((resolve, reject) => {
      if (!this.#connection || this.#isBroken) return resolve(null);
      const seq = ++this.#seq;
      this.#digests.set(seq, { resolve, reject });
      this.#connection.send({ seq, digestRequest: { image, offset, length, acceptZero } });
    });
  }

  /**
   * How long a change or flush that a guest may be waiting for has been on its way while nothing at all was
   * acknowledged: a slow link that gets ahead is not a target that hangs. 0: nobody waits.
   */
  get stalled(): Millis {
    return millis(Math.max(this.#connectionStalled, this.#laneStalled(), this.#syncStalled()));
  }

  get #connectionStalled(): number {
    for (const sent of this.#awaited.values()) {
      return this.#clock.now() - Math.max(sent, this.#lastAck);
    }
    return 0;
  }

  /** Looked at again and again: since when the same write has been the oldest of the lane. */
  #laneStalled(): number {
    const lane = this.#stream?.lane;
    const now = this.#clock.now();
    const oldest = lane && lane.underWay > 0 ? lane.acknowledged : -1;
    if (oldest !== this.#laneOldest.count || oldest < 0) this.#laneOldest = { count: oldest, since: now };
    return now - this.#laneOldest.since;
  }

  /** The same of flushes, which come apart from writes. */
  #syncStalled(): number {
    const now = this.#clock.now();
    const sequence = this.#stream?.lane.syncs.oldest ?? 0;
    if (sequence !== this.#syncOldest.sequence || sequence === 0) this.#syncOldest = { sequence, since: now };
    return now - this.#syncOldest.since;
  }

  /** Sends a frame that is not acknowledged; nothing happens without a connection. */
  tell(frame: FrameProperties): void {
    this.#connection?.send({ ...frame, seq: 0 });
  }

  /** Resolves when the target has acted on the frame (`acked`), or the connection has broken before it said so. */
  confirmed(frame: FrameProperties): Promise<Outcome> {
    const connection = this.#connection;
    if (!connection) return Promise.resolve('lost');
    return new Promise((resolve) => {
      const seq = ++this.#seq;
      this.inFlight.add(seq, resolve);
      connection.send({ ...frame, seq });
    });
  }

  #receive(frame: Frame): void {
    switch (frame.body) {
      case 'ack':
        this.#acked(frame.ack);
        return;
      case 'digestReply': {
        const { requestSeq, sha256, zero, failure } = frame.digestReply;
        const waiter = this.#digests.get(requestSeq);
        this.#digests.delete(requestSeq);
        if (failure) waiter?.reject(failureOf(failure));
        else waiter?.resolve({ sha256, zero });
        return;
      }
      case 'cutoverRequest':
        this.#events.cutoverRequested();
        return;
      case 'cutoverTaken':
        this.#events.cutoverTaken();
        return;
      case 'failure':
        this.#events.failed(failureOf(frame.failure));
        return;
      default:
        throw new MigrateFsError('INVALID_ARGUMENT', `unexpected ${frame.body} frame from the target`);
    }
  }

  #acked({ seqs, failure }: migratefs.data.Ack): void {
    if (failure) {
      this.#events.failed(failureOf(failure));
      return;
    }
    this.#lastAck = this.#clock.now();
    for (const seq of seqs) {
      this.#awaited.delete(seq);
      if (!this.inFlight.ack(seq))
        throw new MigrateFsError('INVALID_ARGUMENT', `acknowledgement of ${seq}, which is not in flight`);
    }
  }
}

export const failureOf = ({ code, message }: migratefs.data.Failure.$Properties): MigrateFsError =>
  new MigrateFsError((code || 'INTERNAL') as ErrorCode, `target: ${message || 'failed'}`);

/** Copies, and what the migration does for itself, are not waited for by a guest. */
const guestWaits = (change: Change): boolean => {
  switch (change.kind) {
    case 'data':
    case 'hole':
    case 'resize':
      return change.mirror === true;
    case 'allocate':
      return true;
    case 'sync':
      return change.ahead !== true;
    default:
      return change satisfies never;
  }
};

const bodyOf = (change: Change): FrameProperties => {
  switch (change.kind) {
    case 'data':
      return { data: { image: change.image, offset: change.offset, mirror: change.mirror } };
    case 'hole':
      return { hole: { image: change.image, offset: change.offset, length: change.length } };
    case 'resize':
      return { resize: { image: change.image, size: change.size } };
    case 'allocate': {
      const { image, mode, offset, length } = change;
      return { allocate: { image, mode, offset, length } };
    }
    case 'sync':
      return { sync: { image: change.image } };
    default:
      return change satisfies never;
  }
};
