import { Worker } from 'node:worker_threads';
import { close, SHUT_RDWR, setUserTimeout, shutdown } from '../../fs/libc.js';
import type { PlainError } from '../../leaves/errors.js';
import type { FromTargetStream, StreamEnd, TargetStreamSetup } from '../stream-messages.js';
import { STREAM_SILENCE_MAX } from '../stream-messages.js';
import { StreamCounters } from './stream-counters.js';
import type { TargetImage } from './target-image.js';

/** MB; see `service-thread.ts`. */
const YOUNG_GENERATION_MAX = 3;
const COUNT_RANGE = 2 ** 32;

export interface StreamReceptionEvents {
  /** A change did not take effect. */
  failed(error: PlainError): void;
  /** Nothing more is received; `rejected`: because of what was. */
  closed(reason: string, rejected: boolean): void;
}

/** The target's end of a stream, as the replica thread sees the thread that serves it. */
export class StreamReception {
  /** Resolves when no replica is changed any more; its thread ends a little later. */
  readonly ended: Promise<void>;
  readonly #fd: number;
  readonly #images: readonly TargetImage[];
  readonly #counters = new StreamCounters();
  readonly #events: StreamReceptionEvents;
  #seen = { bytes: 0, mirrored: 0, changes: 0 };
  #isClosed = false;

  /** Owns the socket from here on. */
  constructor(end: StreamEnd, images: readonly TargetImage[], events: StreamReceptionEvents) {
    this.#fd = end.fd;
    this.#images = images;
    this.#events = events;
    setUserTimeout(end.fd, STREAM_SILENCE_MAX);
    const setup: TargetStreamSetup = {
      ...end,
      images: images.map(({ name, file }) => ({ name, fd: file.fd })),
      counters: this.#counters.buffer,
    };
    const worker = new Worker(new URL('./stream-thread.js', import.meta.url), {
      name: 'stream',
      workerData: setup,
      resourceLimits: { maxYoungGenerationSizeMb: YOUNG_GENERATION_MAX },
    });
    this.ended = new Promise((resolve) => {
      worker.on('message', (message: FromTargetStream) => {
        this.#receive(message);
        if (message.type === 'closed') resolve();
      });
      worker.once('exit', () => {
        this.#onClosed('its thread has ended', false);
        close(end.fd);
        resolve();
      });
    });
    worker.on('error', (error) => this.#onClosed(`its thread has crashed: ${error.message}`, false));
  }

  /** Resolves when no replica is changed any more. */
  close(): Promise<void> {
    if (!this.#isClosed) shutdown(this.#fd, SHUT_RDWR);
    this.#isClosed = true;
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
