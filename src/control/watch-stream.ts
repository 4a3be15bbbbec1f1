import type { ServerWritableStream } from '@grpc/grpc-js';
import { Metadata } from '@grpc/grpc-js';
import { MigrateFsError } from '../leaves/errors.js';
import type { LogSink } from '../leaves/log-sink.js';
import type { MigrationControl, MigrationSnapshot } from '../leaves/migration.js';
import { isFinal } from '../leaves/migration.js';
import { migrationMessage } from './migration-message.js';
import { statusOfError } from './status-error.js';
import type { MigrationIdMessage, MigrationMessage } from './wire.js';

const METHOD = 'WatchMigration';
const WATCH_STREAMS_MAX = 64;

type WatchCall = ServerWritableStream<MigrationIdMessage, MigrationMessage>;

/** The open WatchMigration streams of a server. */
export class WatchStreams {
  readonly #service: MigrationControl;
  readonly #log: LogSink;
  readonly #open = new Set<WatchStream>();

  constructor(service: MigrationControl, log: LogSink) {
    this.#service = service;
    this.#log = log;
  }

  serve(call: WatchCall): void {
    if (this.#open.size >= WATCH_STREAMS_MAX) {
      const error = new MigrateFsError(
        'RESOURCE_EXHAUSTED',
        `${WATCH_STREAMS_MAX} watch streams are open already: close one, or use GetMigration`,
      );
      call.emit('error', statusOfError(error, METHOD, this.#log));
      return;
    }
    const stream = new WatchStream(call, this.#service, this.#log, () => this.#open.delete(stream));
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
class WatchStream {
  readonly #call: WatchCall;
  readonly #service: MigrationControl;
  readonly #log: LogSink;
  readonly #onClosed: () => void;
  readonly #id: string;
  readonly #unsent = new Map<string, MigrationSnapshot>();
  #unsubscribe = (): void => {};
  #phase: 'starting' | 'flowing' | 'blocked' | 'closed' = 'starting';

  constructor(call: WatchCall, service: MigrationControl, log: LogSink, onClosed: () => void) {
    this.#call = call;
    this.#service = service;
    this.#log = log;
    this.#onClosed = onClosed;
    this.#id = call.request.migrationId;
  }

  async begin(): Promise<void> {
    const call = this.#call;
    call.on('cancelled', () => this.#close());
    call.on('close', () => this.#close());
    call.on('drain', () => {
      if (this.#phase !== 'blocked') return;
      this.#phase = 'flowing';
      this.#flush();
    });
    try {
      // Subscribed before asking, so that no change falls between the two.
      this.#unsubscribe = this.#service.watch((snapshot) => this.#take(snapshot));
      const current = this.#id === '' ? await this.#service.list() : [await this.#service.get(this.#id)];
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
    this.#call.emit('error', statusOfError(error, METHOD, this.#log));
  }

  #take(snapshot: MigrationSnapshot): void {
    if (this.#id !== '' && snapshot.id !== this.#id) return;
    this.#unsent.set(snapshot.id, snapshot);
    if (this.#phase === 'flowing') this.#flush();
  }

  #flush(): void {
    for (const [id, snapshot] of this.#unsent) {
      this.#unsent.delete(id);
      const taken = this.#call.write(migrationMessage(snapshot));
      if (this.#id !== '' && isFinal(snapshot.state)) {
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
