import { timingSafeEqual } from 'node:crypto';
import type { Clock } from '../../leaves/clock.js';
import type { PlainError } from '../../leaves/errors.js';
import { millis } from '../../leaves/units.js';
import type { StreamEnd } from '../stream-messages.js';
import type { Received } from './received.js';
import { StreamReception } from './stream-reception.js';
import type { TargetImage } from './target-image.js';

/** Between two looks at what the stream has brought. */
const COUNT_INTERVAL = millis(250);

export interface IncomingStreamOptions {
  readonly clock: Clock;
  readonly images: () => readonly TargetImage[];
  readonly received: Received;
  /** A change did not take effect. */
  readonly failed: (error: PlainError) => void;
  /** What came was unacceptable; nothing more is received. */
  readonly rejected: (reason: string) => void;
}

/** The stream beside a migration's connection: at most one for each, let in by the token that the connection was given. */
export class IncomingStream {
  readonly #options: IncomingStreamOptions;
  #token: Uint8Array | null = null;
  #reception: StreamReception | undefined;
  #ended: Promise<void> = Promise.resolve();

  constructor(options: IncomingStreamOptions) {
    this.#options = options;
  }

  get isOpen(): boolean {
    return this.#reception !== undefined;
  }

  /** Resolves when no stream changes the replicas any more. */
  get ended(): Promise<void> {
    return this.#ended;
  }

  /** One stream with this token is let in; null: none. */
  expect(token: Uint8Array | null): void {
    this.#token = token;
  }

  expects(token: Uint8Array): boolean {
    const expected = this.#token;
    return expected !== null && token.length === expected.length && timingSafeEqual(token, expected);
  }

  /** Applies what comes over the stream, the one that was expected, until it is closed. */
  open(end: StreamEnd): void {
    const { images, failed, rejected } = this.#options;
    this.#token = null;
    const reception = new StreamReception(end, images(), {
      failed,
      // The source sees the end of a stream as well, and knows whether it was to end.
      closed: (reason, wasRejected) => {
        if (wasRejected) rejected(reason);
      },
    });
    this.#reception = reception;
    this.#ended = reception.ended;
    this.#watch(reception);
  }

  /** Nor is one let in; what has come is applied by the time that `ended` says. */
  close(): void {
    this.count();
    this.#token = null;
    void this.#reception?.close();
    this.#reception = undefined;
  }

  /** Counts what the stream has brought. */
  count(): void {
    const got = this.#reception?.take();
    if (!got || got.changes === 0) return;
    const { received, images } = this.#options;
    received.add(got.bytes - got.mirrored, false);
    received.add(got.mirrored, true);
    images()[0]!.noteChanges(got.changes);
  }

  #watch(reception: StreamReception): void {
    this.#options.clock.after(COUNT_INTERVAL, () => {
      if (this.#reception !== reception) return;
      this.count();
      this.#watch(reception);
    });
  }
}
