import { preadTo } from '../../fs/libc.js';
import type { MirrorLane } from '../../fs/mirror-lane.js';
import { FOR_EVER, sendWhole } from '../../fs/stream-socket.js';
import { RECORD_HEAD_BYTES, RECORD_KIND, RECORD_PAYLOAD_BYTES_MAX } from '../../leaves/stream-record.js';
import { KiB } from '../../leaves/units.js';
import type { CopyCommand, PlainCommand, SentRuns } from '../stream-messages.js';
import { FileImage } from './file-image.js';
import { RecordPacket } from './record-packet.js';
import { isZero, runParts } from './run-parts.js';

/** As much of small runs is sent at once: with more, send(2) is no part of their cost worth saving. */
const PACKET_BYTES_MAX = 256 * KiB;
const PACKET_RECORDS_MAX = 256;

/** Reads runs of blocks and sends them, in the thread that calls. */
export class StreamCopier {
  readonly #fd: number;
  readonly #lane: MirrorLane;
  readonly #packet: RecordPacket;
  readonly #nextSequence: () => number;
  readonly #images = new Map<number, FileImage>();
  /** Of the last record. */
  #sequence = 0;

  constructor(fd: number, key: Uint8Array | null, lane: MirrorLane) {
    this.#fd = fd;
    this.#lane = lane;
    this.#packet = new RecordPacket(RECORD_HEAD_BYTES + RECORD_PAYLOAD_BYTES_MAX, PACKET_RECORDS_MAX, key);
    this.#nextSequence = () => {
      this.#sequence = lane.nextSequence();
      return this.#sequence;
    };
  }

  /**
   * Sends what the runs from number `first` on hold now, zeroes as holes: one of them, or small ones together. Undefined:
   * the connection is broken. Errors: the image cannot be read; then none of them counts as sent.
   */
  advance({ image, fd, runs, piece }: CopyCommand, first: number): SentRuns | undefined {
    const port = this.#port(fd, image);
    const packet = this.#packet;
    packet.clear();
    let bytes = 0;
    let next = first;
    for (; 2 * next < runs.length && !packet.full; next++) {
      const length = runs[2 * next + 1]!;
      if (length > piece || packet.payloadAt + length > PACKET_BYTES_MAX) break;
      const payload = this.#pack(fd, runs[2 * next]!, length);
      if (payload < 0) break;
      bytes += payload;
    }
    if (next === first) return this.#sendParts(port, image, runs[2 * first]!, runs[2 * first + 1]!, piece);
    return this.#send(image) ? { runs: next - first, bytes, sequence: this.#sequence } : undefined;
  }

  /** Undefined: the connection is broken. */
  resize({ image, size }: PlainCommand): SentRuns | undefined {
    this.#packet.clear();
    this.#packet.add(RECORD_KIND.resize, 0, size, 0);
    return this.#send(image) ? { runs: 1, bytes: 0, sequence: this.#sequence } : undefined;
  }

  #port(fd: number, image: number): FileImage {
    const known = this.#images.get(fd);
    if (known) return known;
    const port = new FileImage(fd, `number ${image}`);
    this.#images.set(fd, port);
    return port;
  }

  /** Adds a run as one record; returns its payload bytes, or -1 when it cannot be read in one go: nothing is added. */
  #pack(fd: number, offset: number, length: number): number {
    const packet = this.#packet;
    const { memory, payloadAt } = packet;
    if (preadTo(fd, packet.address + payloadAt, length, offset) !== length) return -1;
    const payload = isZero(memory, payloadAt, payloadAt + length) ? 0 : length;
    packet.add(payload > 0 ? RECORD_KIND.data : RECORD_KIND.hole, offset, length, payload);
    return payload;
  }

  /** One run, in as many records as it has parts. The head of each is made over what was sent before it. */
  #sendParts(
    port: FileImage,
    image: number,
    offset: number,
    length: number,
    piece: number,
  ): SentRuns | undefined {
    const packet = this.#packet;
    const run = packet.memory.subarray(RECORD_HEAD_BYTES, RECORD_HEAD_BYTES + length);
    const segments = port.segments(offset, length);
    const lengths = segments.map((segment) => {
      const at = segment.offset - offset;
      return segment.data ? port.readNow(run.subarray(at, at + segment.length), segment.offset) : 0;
    });
    let bytes = 0;
    for (const part of runParts(run, offset, segments, lengths, piece)) {
      const payload = part.data ? part.length : 0;
      packet.clear(part.data ? RECORD_HEAD_BYTES + part.offset - offset : undefined);
      packet.add(part.data ? RECORD_KIND.data : RECORD_KIND.hole, part.offset, part.length, payload);
      if (!this.#send(image)) return undefined;
      bytes += payload;
    }
    return { runs: 1, bytes, sequence: this.#sequence };
  }

  /** Sends what is in the packet. False: the connection is broken. */
  #send(image: number): boolean {
    const lane = this.#lane;
    lane.lock.acquire();
    try {
      return !lane.closed && sendWhole(this.#fd, this.#packet.seal(image, this.#nextSequence), FOR_EVER);
    } finally {
      lane.lock.release();
    }
  }
}
