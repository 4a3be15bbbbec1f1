import { createBackingCalls } from '../../fs/backing-calls.js';
import type { ImageSlot } from '../../fs/image-table.js';
import { alignedBytes } from '../../fs/kernel/aligned-memory.js';
import { LaneWriter } from '../../fs/lane-writer.js';
import type { LaneAnnouncement, LaneRequest } from '../../fs/mirror-lane.js';
import { STREAM_PARTICIPANT } from '../../fs/mirror-lane.js';
import { RECORD_HEAD_BYTES, RECORD_PAYLOAD_BYTES_MAX, RecordHead } from '../../leaves/stream-record.js';
import type { LaneWrite } from '../stream-messages.js';
import { BY_NUMBER } from '../stream-messages.js';
import type { LaneTracks } from './lane-tracks.js';

/** Writes that came to the replica thread, made by the stream's thread as by any participant of the lane. */
export class StreamWriter {
  readonly #tracksOf: (slot: ImageSlot) => LaneTracks;
  readonly #announcement: Omit<LaneAnnouncement, 'image'>;
  readonly #calls = createBackingCalls();
  readonly #writers = new Map<ImageSlot, LaneWriter>();
  /** The request of one write after the other: its number, and the record that it is sent as. */
  readonly #request: LaneRequest;
  readonly #payload: Uint8Array;
  /** In the order they came. */
  readonly #waiting: LaneWrite[] = [];
  /** Whose payload is in memory. */
  #loaded: LaneWrite | undefined;

  constructor(announcement: Omit<LaneAnnouncement, 'image'>, tracksOf: (slot: ImageSlot) => LaneTracks) {
    this.#announcement = announcement;
    this.#tracksOf = tracksOf;
    const record = alignedBytes(RECORD_HEAD_BYTES + RECORD_PAYLOAD_BYTES_MAX, RECORD_HEAD_BYTES);
    const head = new RecordHead(record.buffer, record.byteOffset);
    this.#request = { fuseFd: BY_NUMBER, words: new Uint32Array(4), head, record };
    this.#payload = record.subarray(RECORD_HEAD_BYTES);
  }

  get idle(): boolean {
    return this.#waiting.length === 0;
  }

  add(write: LaneWrite): void {
    this.#waiting.push(write);
  }

  /** Makes what the lane takes now; false: it does not take the next one yet. */
  work(): boolean {
    for (let next = this.#waiting[0]; next; next = this.#waiting[0]) {
      const { slot, fd, offset, payload, whole } = next;
      this.#load(next);
      const writer = this.#writerOf(next);
      // Acknowledgements are taken in by this thread, later: it never answers.
      if (writer.write(slot, fd, this.#payload, payload.length, offset, this.#request, whole) === undefined)
        return false;
      this.#waiting.shift();
    }
    return true;
  }

  /** The lane is closed: what has waited is made and marked. */
  finish(written: (id: number, result: number) => void): void {
    for (const write of this.#waiting.splice(0)) {
      const { id, slot, fd, offset, payload, whole } = write;
      this.#load(write);
      const made = this.#calls.pwrite(fd, this.#payload, payload.length, offset, whole);
      const tracks = this.#tracksOf(slot);
      tracks.bitmap.mark(offset, payload.length);
      tracks.written.note(offset, made);
      written(id, made);
    }
  }

  #load(write: LaneWrite): void {
    if (this.#loaded === write) return;
    this.#loaded = write;
    this.#payload.set(write.payload);
    this.#request.words[2] = write.id;
  }

  #writerOf({ slot, image }: LaneWrite): LaneWriter {
    const known = this.#writers.get(slot);
    if (known) return known;
    const { bitmap, written } = this.#tracksOf(slot);
    const announcement = { ...this.#announcement, image };
    const writer = new LaneWriter(announcement, STREAM_PARTICIPANT, this.#calls, bitmap, written);
    this.#writers.set(slot, writer);
    return writer;
  }
}
