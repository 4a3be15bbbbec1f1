import type { ServerWritableStream } from '@grpc/grpc-js';
import { Metadata } from '@grpc/grpc-js';
import { MigrateFsError } from '../leaves/errors.js';
import type { LogSink } from '../leaves/log-sink.js';
import { statusOfError } from './status-error.js';

const WATCH_STREAMS_MAX = 64;

/** What can be watched: things with an id that change. */
interface WatchSource<Snapshot extends { readonly id: string }> {
  get(id: string): Promise<Snapshot> | Snapshot;
  list(): Promise<readonly Snapshot[]> | readonly Snapshot[];
  /** Calls `listener` on every change; returns the unsubscribe. */
  watch(listener: (snapshot: Snapshot) => void): () => void;
}

interface WatchOptions<Request, Snapshot extends { readonly id: string }> {
  /** Name of the method, for the log. */
  readonly method: string;
  /** What to call instead when there are too many streams. */
  readonly instead: string;
  readonly source: WatchSource<Snapshot>;
  /** Of the request: which one; empty: all. */
  readonly idOf: (request: Request) => string;
  readonly messageOf: (snapshot: Snapshot) => object;
  readonly isFinal: (snapshot: Snapshot) => boolean;
  readonly log: LogSink;
}

type WatchCall<Request> = ServerWritableStream<Request, object>;

/** The open streams of one method of a server. */
export class WatchStreams<Request, Snapshot extends { readonly id: string }> {
  readonly #options: WatchOptions<Request, Snapshot>;
  readonly #open = new Set<WatchStream<Request, Snapshot>>();

  constructor(options: WatchOptions<Request, Snapshot>) {
    this.#options = options;
  }

  serve(call: WatchCall<Request>): void {
    const { method, instead, log } = this.#options;
    if (this.#open.size >= WATCH_STREAMS_MAX) {
      const error = new MigrateFsError(
        'RESOURCE_EXHAUSTED',
        `${WATCH_STREAMS_MAX} watch streams are open already: close one, or use ${instead}`,
      );
      call.emit('error', statusOfError(error, method, log));
      return;
    }
    const stream: WatchStream<Request, Snapshot> = new WatchStream(call, this.#options, () =>
      this.#open.delete(stream),
    );
    this.#open.add(stream);
    void stream.begin();
  }

  /** Ends every stream with UNAVAILABLE. */
  close(): void {
    for (const stream of this.#open)
      stream.fail(new MigrateFsError('UNAVAILABLE', 'the daemon is shutting down'));
  }
}

/**
 * One stream. What a slow reader has not taken yet is kept as the latest snapshot of each migration, so memory is
 * bounded by the number of migrations.
 */
class WatchStream<Request, Snapshot extends { readonly id: string }> {
  readonly #call: WatchCall<Request>;
  readonly #options: WatchOptions<Request, Snapshot>;
  readonly #onClosed: () => void;
  readonly #id: string;
  readonly #unsent = new Map<string, Snapshot>();
  #unsubscribe = (): void => {};
  #phase: 'starting' | 'flowing' | 'blocked' | 'closed' = 'starting';

  constructor(call: WatchCall<Request>, options: WatchOptions<Request, Snapshot>, onClosed: () => void) {
    this.#call = call;
    this.#options = options;
    this.#onClosed = onClosed;
    this.#id = options.idOf(call.request);
  }

  async begin(): Promise<void> {
    const call = this.#call;
    const { source } = this.#options;
    call.on('cancelled', () => this.#close());
    call.on('close', () => this.#close());
    call.on('drain', () => {
      if (this.#phase !== 'blocked') return;
      this.#phase = 'flowing';
      this.#flush();
    });
    try {
      // Subscribed before asking, so that no change falls between the two.
      this.#unsubscribe = source.watch((snapshot) => this.#take(snapshot));
      const current = this.#id === '' ? await source.list() : [await source.get(this.#id)];
      if (this.#phase === 'closed') return;
      call.sendMetadata(new Metadata());
      // A change that arrived meanwhile is at least as new as the answer.
      for (const snapshot of current)
        if (!this.#unsent.has(snapshot.id)) this.#unsent.set(snapshot.id, snapshot);
      this.#phase = 'flowing';
      this.#flush();
    } catch (error) {
      this.fail(error);
    }
  }

  fail(error: unknown): void {
    if (this.#phase === 'closed') return;
    this.#close();
    this.#call.emit('error', statusOfError(error, this.#options.method, this.#options.log));
  }

  #take(snapshot: Snapshot): void {
    if (this.#id !== '' && snapshot.id !== this.#id) return;
    this.#unsent.set(snapshot.id, snapshot);
    if (this.#phase === 'flowing') this.#flush();
  }

  #flush(): void {
    for (const [id, snapshot] of this.#unsent) {
      this.#unsent.delete(id);
      const taken = this.#call.write(this.#options.messageOf(snapshot));
      if (this.#id !== '' && this.#options.isFinal(snapshot)) {
        this.#close();
        this.#call.end();
        return;
      }
      if (!taken) {
        this.#phase = 'blocked';
        return;
      }
    }
  }

  #close(): void {
    if (this.#phase === 'closed') return;
    this.#phase = 'closed';
    this.#unsubscribe();
    this.#unsent.clear();
    this.#onClosed();
  }
}
