import assert from 'node:assert/strict';
import { MessageChannel, Worker } from 'node:worker_threads';
import { KernelAnswer } from '../../fs/kernel/reply.js';
import {
  close,
  EFD_CLOEXEC,
  eventfd,
  SHUT_RDWR,
  setSendBuffer,
  setUserTimeout,
  shutdown,
  write,
} from '../../fs/libc.js';
import type { LaneAnnouncement } from '../../fs/mirror-lane.js';
import { LANE_SEND_BUFFER, MirrorLane } from '../../fs/mirror-lane.js';
import type { PlainError } from '../../leaves/errors.js';
import { MigrateFsError } from '../../leaves/errors.js';
import type {
  CopyCommand,
  FromSourceStream,
  LaneMarks,
  LaneWrite,
  PlainCommand,
  SentRuns,
  SourceStreamSetup,
  StreamEnd,
  ToSourceStream,
} from '../stream-messages.js';
import { BY_NUMBER, STREAM_SILENCE_MAX } from '../stream-messages.js';
import { laneTracks } from './lane-tracks.js';
import type { BulkBatch, BulkPort, RunsSettled, Settled } from './ports.js';

/** MB; see `service-thread.ts`. */
const YOUNG_GENERATION_MAX = 3;
/** For whoever is sending when the thread of a stream has crashed. */
const LOCK_WAIT_MS = 1000;
const ONE = new Uint8Array(BigUint64Array.of(1n).buffer);

interface CommandEvents {
  /** All of it; payload bytes. */
  readonly sent: (bytes: number) => void;
  readonly failed: (error: Error) => void;
  readonly settled: RunsSettled;
}

/** Given to the thread, and not all of its runs are settled. */
class Command {
  readonly #runs: number;
  readonly #events: CommandEvents;
  /** Sent and not acknowledged. */
  readonly #waiting: SentRuns[] = [];
  #sentRuns = 0;
  #sentBytes = 0;
  #settledRuns = 0;

  constructor(runs: number, events: CommandEvents) {
    this.#runs = runs;
    this.#events = events;
  }

  sent(sent: SentRuns): void {
    this.#waiting.push(sent);
    this.#sentRuns += sent.runs;
    this.#sentBytes += sent.bytes;
    assert(this.#sentRuns <= this.#runs, 'sent more than was given');
    if (this.#sentRuns === this.#runs) this.#events.sent(this.#sentBytes);
  }

  failed({ code, message }: PlainError): void {
    this.#events.failed(new MigrateFsError(code, message));
  }

  /** Everything up to and including record `sequence` has taken effect. True: nothing is left. */
  acked(sequence: number): boolean {
    for (let [next] = this.#waiting; next && next.sequence <= sequence; [next] = this.#waiting) {
      this.#waiting.shift();
      this.#settledRuns += next.runs;
      this.#events.settled('acked', next.runs, next.bytes);
    }
    return this.#settledRuns === this.#runs;
  }

  /** What its thread reads of the image meanwhile goes nowhere. */
  lost(): void {
    if (this.#sentRuns < this.#runs) this.#events.sent(this.#sentBytes);
    this.#events.settled('lost', this.#runs - this.#settledRuns, 0);
  }
}

/** The source's end of a stream, as the replica thread sees the thread that serves it. */
export class StreamLink implements BulkPort {
  /** Why nothing is sent over it any more. Never rejects. */
  readonly closed: Promise<string>;
  /** Resolves when its thread has ended: it uses no image any more, and every write of its lane is settled. */
  readonly ended: Promise<void>;
  readonly lane: MirrorLane;
  /** The socket's buffer takes what a lane has under way. */
  readonly hasLane: boolean;
  readonly #end: StreamEnd;
  readonly #wakeFd: number;
  readonly #worker: Worker;
  readonly #port: MessageChannel['port1'];
  /** In the order they were given. */
  readonly #commands = new Map<number, Command>();
  readonly #drains = new Map<number, () => void>();
  readonly #waiters = new Set<() => void>();
  readonly #writes = new Map<
    number,
    { readonly done: (result: number) => void; readonly again: () => void }
  >();
  #marks: readonly LaneMarks[] = [];
  #outbox: (CopyCommand | PlainCommand)[] = [];
  #lastId = 0;
  #isClosed = false;
  #resolveClosed!: (reason: string) => void;

  private constructor(end: StreamEnd) {
    this.#end = end;
    this.#wakeFd = eventfd(0, EFD_CLOEXEC);
    if (this.#wakeFd < 0) {
      close(end.fd);
      throw new MigrateFsError('RESOURCE_EXHAUSTED', 'no descriptor is left for a stream');
    }
    this.lane = new MirrorLane();
    this.hasLane = this.lane.fit(setSendBuffer(end.fd, LANE_SEND_BUFFER));
    setUserTimeout(end.fd, STREAM_SILENCE_MAX);
    const { port1, port2 } = new MessageChannel();
    this.#port = port1;
    port1.unref();
    const setup: SourceStreamSetup = { ...end, wakeFd: this.#wakeFd, lane: this.lane.buffer, port: port2 };
    this.#worker = new Worker(new URL('./stream-thread.js', import.meta.url), {
      name: 'stream',
      workerData: setup,
      transferList: [port2],
      resourceLimits: { maxYoungGenerationSizeMb: YOUNG_GENERATION_MAX },
    });
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve;
    });
    this.ended = new Promise((resolve) =>
      this.#worker.once('exit', () => {
        this.#onClosed('its thread has ended');
        this.#settleLane();
        this.#marks = [];
        port1.close();
        close(this.#wakeFd);
        close(end.fd);
        resolve();
      }),
    );
  }

  /** Resolves when its thread is there; it owns the socket from this call on. */
  static async open(end: StreamEnd): Promise<StreamLink> {
    const link = new StreamLink(end);
    return new Promise((resolve, reject) => {
      link.#worker.on('message', (message: FromSourceStream) => {
        if (message.type === 'ready') resolve(link);
        else link.#receive(message);
      });
      link.#worker.once('error', (error) => {
        link.#onClosed(error.message);
        reject(new MigrateFsError('INTERNAL', `the thread of a stream has crashed: ${error.message}`));
      });
    });
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  copy(batch: BulkBatch, settled: RunsSettled): Promise<number> {
    return new Promise((sent, failed) =>
      this.#give((id) => ({ id, ...batch }), new Command(batch.runs.length / 2, { sent, failed, settled })),
    );
  }

  /** Sends the size behind everything given before. */
  resize(image: number, size: number, settled: Settled): void {
    const ignore = (): void => {};
    const events = { sent: ignore, failed: ignore, settled };
    this.#give((id) => ({ id, kind: 'resize', image, size }), new Command(1, events));
  }

  /** What participants need to use the lane for an image; `marks` of every image come before the first is announced. */
  announcement(image: number): LaneAnnouncement {
    return { buffer: this.lane.buffer, fd: this.#end.fd, key: this.#end.sendKey, image };
  }

  setMarks(images: readonly LaneMarks[]): void {
    this.#marks = images;
    this.#post({ type: 'marks', images });
  }

  /**
   * Has the stream's thread write over the lane. `done` is called with the result, or `again` when it did not come to it.
   * False: the stream is closed, nothing is called.
   */
  laneWrite(write: Omit<LaneWrite, 'id'>, done: (result: number) => void, again: () => void): boolean {
    if (this.#isClosed) return false;
    const id = ++this.#lastId;
    this.#writes.set(id, { done, again });
    this.#post({ type: 'write', id, ...write });
    return true;
  }

  /** Resolves when nothing given before is in flight, or the stream is closed. */
  async copiesDrained(signal: AbortSignal): Promise<void> {
    while (this.#commands.size > 0) {
      await this.#settledOnce(signal);
      signal.throwIfAborted();
    }
  }

  /** Resolves when every write of the lane is settled. Only while nobody begins one. */
  laneDrained(): Promise<void> {
    if (this.#isClosed) return this.ended;
    return new Promise((resolve) => {
      const id = ++this.#lastId;
      this.#drains.set(id, resolve);
      this.#post({ type: 'drain', id });
    });
  }

  /** Everything unacknowledged is lost, as with a lost peer. */
  close(): void {
    if (this.#isClosed) return;
    shutdown(this.#end.fd, SHUT_RDWR);
    this.#wake();
    this.#onClosed('closed here');
  }

  #settledOnce(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const end = (): void => {
        signal.removeEventListener('abort', end);
        this.#waiters.delete(end);
        resolve();
      };
      signal.addEventListener('abort', end, { once: true });
      if (signal.aborted) end();
      else this.#waiters.add(end);
    });
  }

  #give(make: (id: number) => CopyCommand | PlainCommand, command: Command): void {
    if (this.#isClosed) {
      command.lost();
      return;
    }
    const id = ++this.#lastId;
    this.#commands.set(id, command);
    this.#outbox.push(make(id));
    // A batch is posted together.
    if (this.#outbox.length === 1) queueMicrotask(() => this.#flush());
  }

  #flush(): void {
    const commands = this.#outbox;
    this.#outbox = [];
    if (!this.#isClosed) this.#post({ type: 'send', commands });
  }

  #post(message: ToSourceStream): void {
    this.#port.postMessage(message);
    this.#wake();
  }

  #wake(): void {
    write(this.#wakeFd, ONE, ONE.length);
  }

  #receive(message: Exclude<FromSourceStream, { type: 'ready' }>): void {
    switch (message.type) {
      case 'sent':
        for (const report of message.reports) {
          const command = this.#commands.get(report.id);
          if ('sent' in report) command?.sent(report.sent);
          else {
            this.#commands.delete(report.id);
            command?.failed(report.error);
          }
        }
        this.#notify();
        return;
      case 'acked':
        for (const [id, command] of this.#commands) {
          if (!command.acked(message.sequence)) break;
          this.#commands.delete(id);
        }
        this.#notify();
        return;
      case 'drained':
        this.#drains.get(message.id)?.();
        this.#drains.delete(message.id);
        return;
      case 'written':
        this.#onWritten(message.id, message.result);
        return;
      case 'closed':
        this.#onClosed(message.reason);
        return;
      default:
        message satisfies never;
    }
  }

  #onWritten(id: number, result: number): void {
    this.#writes.get(id)?.done(result);
    this.#writes.delete(id);
  }

  /** What a thread that has crashed left behind: nobody waits for ever, and nobody sends to what its socket becomes. */
  #settleLane(): void {
    const tracks = laneTracks(this.#marks);
    const answer = new KernelAnswer();
    this.lane.close(LOCK_WAIT_MS);
    this.lane.settle(
      Number.MAX_SAFE_INTEGER,
      true,
      (slot) => tracks.get(slot)!.bitmap,
      (fuseFd, low, high, result) => {
        if (fuseFd === BY_NUMBER) this.#onWritten(low, result);
        else answer.send(fuseFd, low, high, result);
      },
    );
    this.lane.syncs.lose((...answered) => answer.send(...answered));
    const writes = [...this.#writes.values()];
    this.#writes.clear();
    for (const { again } of writes) again();
  }

  #notify(): void {
    for (const end of [...this.#waiters]) end();
  }

  #onClosed(reason: string): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#resolveClosed(reason);
    const all = [...this.#commands.values()];
    this.#commands.clear();
    for (const command of all) command.lost();
    const drains = [...this.#drains.values()];
    this.#drains.clear();
    void this.ended.then(() => {
      for (const resolve of drains) resolve();
    });
    this.#notify();
  }
}
