import type { MessagePort } from 'node:worker_threads';
import { receiveMessageOnPort } from 'node:worker_threads';
import { createBackingCalls } from '../backing-calls.js';
import { ImageIo } from '../image-io.js';
import { GraceCounters, ImageTable } from '../image-table.js';
import type { BitmapAnnouncement } from '../participant.js';
import { ActivityMark } from './activity-table.js';
import type { DataRequest } from './data-operations.js';
import { DataOperations } from './data-operations.js';
import { HandleTable } from './handle-table.js';
import { TRANSFER_BYTES_MAX } from './protocol.js';
import { NO_REPLY, ReplyBuffer } from './reply.js';
import type { LaneSetup } from './thread-messages.js';

/** What every thread that performs data requests has: its part in the modes of images, its buffers, its mark. */
export class DataParticipant {
  readonly table: ImageTable;
  readonly handles: HandleTable;
  readonly reply = new ReplyBuffer(TRANSFER_BYTES_MAX);
  readonly mark: ActivityMark;
  readonly port: MessagePort;
  readonly #io: ImageIo;
  readonly #operations: DataOperations;
  readonly #posted: Int32Array;
  #postsSeen = 0;

  constructor(setup: LaneSetup) {
    this.port = setup.port;
    this.table = new ImageTable(setup.images);
    this.handles = new HandleTable(setup.handles);
    this.mark = new ActivityMark(setup.activity, setup.participant);
    this.#posted = new Int32Array(setup.posted);
    const grace = new GraceCounters(setup.grace);
    this.#io = new ImageIo(this.table, grace, setup.participant, createBackingCalls(), () => this.#drain());
    for (const announcement of setup.announced) this.#io.announce(announcement);
    this.#operations = new DataOperations({
      table: this.table,
      handles: this.handles,
      io: this.#io,
      reply: this.reply,
      route: (request, transfer) => this.port.postMessage(request, transfer),
    });
  }

  /** A thread that never serves a tracked write would keep every bitmap that was ever announced. */
  takeAnnouncements(): void {
    const posts = Atomics.load(this.#posted, 0);
    if (posts === this.#postsSeen) return;
    this.#postsSeen = posts;
    this.#drain();
  }

  /** Performs and answers; false: the thread was replaced meanwhile and must end. */
  serve(request: DataRequest, slot: number): boolean {
    const { words, fuseFd } = request;
    this.mark.begin(slot, words, fuseFd);
    const answer = this.#operations.serve(request);
    if (answer !== NO_REPLY) this.reply.send(fuseFd, words[2]!, words[3]!, answer);
    return this.mark.end();
  }

  #drain(): void {
    for (let got = receiveMessageOnPort(this.port); got; got = receiveMessageOnPort(this.port))
      this.#io.announce(got.message as BitmapAnnouncement);
  }
}
