import { Worker } from 'node:worker_threads';
import { close, SHUT_RDWR, setUserTimeout, shutdown } from '../../fs/libc.js';
import type { PlainError } from '../../leaves/errors.js';
import type { FromFlushThread, FromTargetStream, StreamEnd, TargetStreamSetup } from '../stream-messages.js';
import { STREAM_SILENCE_MAX } from '../stream-messages.js';
import { StreamCounters } from './stream-counters.js';
import { StreamReplies } from './stream-replies.js';
import type { TargetImage } from './target-image.js';
import { WantedFlushes } from './wanted-flushes.js';

/** MB; see `service-thread.ts`. */
const YOUNG_GENERATION_MAX = 3;
const COUNT_RANGE = 2 ** 32;

export interface StreamReceptionEvents {
  /** A change did not take effect. */
  failed(error: PlainError): void;
  /** Nothing more is received; `rejected`: because of what was. */
  closed(reason: string, rejected: boolean): void;
}

const startThread = (entry: string, workerData: TargetStreamSetup): Worker =>
  new Worker(new URL(entry, import.meta.url), {
    name: 'stream',
    workerData,
    resourceLimits: { maxYoungGenerationSizeMb: YOUNG_GENERATION_MAX },
  });

/** The target's end of a stream, as the replica thread sees the threads that serve it. */
export class StreamReception {
  /** Resolves when no replica is changed any more; its threads end a little later. */
  readonly ended: Promise<void>;
  readonly #fd: number;
  readonly #images: readonly TargetImage[];
  readonly #counters = new StreamCounters();
  readonly #flushes: WantedFlushes;
  readonly #events: StreamReceptionEvents;
  #seen = { bytes: 0, mirrored: 0, changes: 0 };
  #isClosed = false;
  /** Closed from this side: nobody wants to know what becomes of what was received. */
  #isLeft = false;

  /** Owns the socket from here on. */
  constructor(end: StreamEnd, images: readonly TargetImage[], events: StreamReceptionEvents) {
    this.#fd = end.fd;
    this.#images = images;
    this.#events = events;
    setUserTimeout(end.fd, STREAM_SILENCE_MAX);
    this.#flushes = WantedFlushes.forImages(images.length);
    const setup: TargetStreamSetup = {
      ...end,
      images: images.map(({ name, file }) => ({ name, fd: file.fd })),
      counters: this.#counters.buffer,
      replies: StreamReplies.shared(),
      flushes: this.#flushes.buffer,
    };
    const worker = startThread('./stream-thread.js', setup);
    // One that is in a flush that does not return may still use the socket afterwards.
    const flushed = this.#startFlushing(setup);
    this.ended = new Promise((resolve) => {
      worker.on('message', (message: FromTargetStream) => {
        this.#receive(message);
        if (message.type === 'closed') resolve();
      });
      worker.once('exit', () => {
        this.#onClosed('its thread has ended', false);
        this.#flushes.end();
        void flushed.then(() => close(end.fd));
        resolve();
      });
    });
    worker.on('error', (error) => this.#onClosed(`its thread has crashed: ${error.message}`, false));
  }

  /** Resolves when no replica is changed any more. */
  close(): Promise<void> {
    if (!this.#isClosed) shutdown(this.#fd, SHUT_RDWR);
    this.#isClosed = true;
    this.#isLeft = true;
    return this.ended;
  }

  /** What has been applied since this was last asked; at least once for each 4 GiB. */
  take(): { readonly bytes: number; readonly mirrored: number; readonly changes: number } {
    const before = this.#seen;
    const { bytes, mirrored, changes } = this.#counters;
    this.#seen = { bytes, mirrored, changes };
    return {
      bytes: (bytes - before.bytes + COUNT_RANGE) % COUNT_RANGE,
      mirrored: (mirrored - before.mirrored + COUNT_RANGE) % COUNT_RANGE,
      changes: (changes - before.changes + COUNT_RANGE) % COUNT_RANGE,
    };
  }

  /** Resolves when the thread that flushes has ended. */
  #startFlushing(setup: TargetStreamSetup): Promise<void> {
    const worker = startThread('./flush-thread.js', setup);
    worker.on('message', ({ error }: FromFlushThread) => {
      if (!this.#isLeft) this.#events.failed(error);
    });
    worker.on('error', () => shutdown(this.#fd, SHUT_RDWR));
    return new Promise((resolve) => worker.once('exit', () => resolve()));
  }

  #receive(message: FromTargetStream): void {
    switch (message.type) {
      case 'ready':
        return;
      case 'size':
        this.#images[message.image]!.sizeIs(message.size);
        return;
      case 'failed':
        this.#events.failed(message.error);
        return;
      case 'closed':
        this.#onClosed(message.reason, message.rejected);
        return;
      default:
        message satisfies never;
    }
  }

  #onClosed(reason: string, rejected: boolean): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#events.closed(reason, rejected);
  }
}
