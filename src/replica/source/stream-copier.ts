import { alignedBytes } from '../../fs/kernel/aligned-memory.js';
import type { MirrorLane } from '../../fs/mirror-lane.js';
import { FOR_EVER, sendWhole } from '../../fs/stream-socket.js';
import { RecordSeal } from '../../leaves/record-seal.js';
import { STAGGER_BYTES } from '../../leaves/staggered-buffer.js';
import type { RecordKind } from '../../leaves/stream-record.js';
import {
  RECORD_HEAD_BYTES,
  RECORD_KIND,
  RECORD_PAYLOAD_BYTES_MAX,
  RecordHead,
} from '../../leaves/stream-record.js';
import type { CopyCommand, PlainCommand } from '../stream-messages.js';
import { FileImage } from './file-image.js';
import { runParts } from './run-parts.js';

/** `sequence`: of the last record. */
export interface Sent {
  readonly bytes: number;
  readonly sequence: number;
}

/** Reads runs of blocks and sends them, in the thread that calls; undefined: the connection is broken. */
export class StreamCopier {
  readonly #fd: number;
  readonly #lane: MirrorLane;
  readonly #seal: RecordSeal;
  /** A record's head and a run: the head of each further record is made over what was sent before it. */
  readonly #memory: Buffer;
  /** Made apart: its place in the memory is as odd as the offset, which need not be a multiple of anything. */
  readonly #headBytes = new Uint8Array(RECORD_HEAD_BYTES);
  readonly #head = new RecordHead(this.#headBytes.buffer, 0);
  readonly #images = new Map<number, FileImage>();

  constructor(fd: number, key: Uint8Array | null, lane: MirrorLane) {
    this.#fd = fd;
    this.#seal = new RecordSeal(key);
    this.#lane = lane;
    const length = RECORD_HEAD_BYTES + RECORD_PAYLOAD_BYTES_MAX;
    const { buffer, byteOffset } = alignedBytes(STAGGER_BYTES + length, RECORD_HEAD_BYTES);
    this.#memory = Buffer.from(buffer, byteOffset + STAGGER_BYTES, length);
  }

  /** Sends what the run holds now, zeroes as holes. Errors: the image cannot be read. */
  copy({ image, fd, offset, length, piece }: CopyCommand): Sent | undefined {
    const port = this.#port(fd, image);
    const run = this.#memory.subarray(RECORD_HEAD_BYTES);
    const segments = port.segments(offset, length);
    const lengths = segments.map((segment) => {
      const at = segment.offset - offset;
      return segment.data ? port.readNow(run.subarray(at, at + segment.length), segment.offset) : 0;
    });
    let bytes = 0;
    let sequence = 0;
    for (const part of runParts(run, offset, segments, lengths, piece)) {
      const at = part.data ? part.offset - offset : 0;
      const kind = part.data ? RECORD_KIND.data : RECORD_KIND.hole;
      const payload = part.data ? part.length : 0;
      sequence = this.#send(at, kind, image, part.offset, part.length, payload);
      if (sequence === 0) return undefined;
      bytes += payload;
    }
    return { bytes, sequence };
  }

  resize({ image, size }: PlainCommand): Sent | undefined {
    const sequence = this.#send(0, RECORD_KIND.resize, image, 0, size, 0);
    return sequence > 0 ? { bytes: 0, sequence } : undefined;
  }

  #port(fd: number, image: number): FileImage {
    const known = this.#images.get(fd);
    if (known) return known;
    const port = new FileImage(fd, `number ${image}`);
    this.#images.set(fd, port);
    return port;
  }

  /** The record whose head is at byte `at` of the memory; its number, or 0 when the connection is broken. */
  #send(
    at: number,
    kind: RecordKind,
    image: number,
    offset: number,
    length: number,
    payload: number,
  ): number {
    const lane = this.#lane;
    const record = this.#memory.subarray(at, at + RECORD_HEAD_BYTES + payload);
    lane.lock.acquire();
    try {
      if (lane.closed) return 0;
      const sequence = lane.nextSequence();
      this.#head.put(kind, image, offset, length, sequence);
      record.set(this.#headBytes);
      return sendWhole(this.#fd, this.#seal.seal(record, sequence - 1), FOR_EVER) ? sequence : 0;
    } finally {
      lane.lock.release();
    }
  }
}
