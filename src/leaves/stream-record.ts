/**
 * The records of a stream: what two threads that send and receive for themselves exchange, beside the frames of the
 * connection that the event loop serves. All numbers are little endian:
 *
 *     0   uint32  length of the body: header and payload, and 16 bytes of tag when it is sealed
 *     4   uint32  CRC-32 of the body; 0 when it is sealed
 *     8   header: uint16 kind, uint16 image, uint32 0, uint64 offset, uint64 length, uint64 seq
 *    40   payload, of `data` and `mirror` only: `length` bytes
 */
import { MigrateFsError } from './errors.js';
import type { Bytes } from './units.js';
import { bytes, MiB } from './units.js';

/** Length and checksum of the body. */
export const RECORD_PREFIX_BYTES = 8;
export const RECORD_HEADER_BYTES = 32;
/** Prefix and header: where the payload begins. */
export const RECORD_HEAD_BYTES = RECORD_PREFIX_BYTES + RECORD_HEADER_BYTES;
export const RECORD_PAYLOAD_BYTES_MAX = bytes(1 * MiB);
/** Of AES-GCM, behind a sealed body. */
export const RECORD_TAG_BYTES = 16;
/** The most that one record takes of the stream. */
export const RECORD_BYTES_MAX = bytes(RECORD_HEAD_BYTES + RECORD_PAYLOAD_BYTES_MAX + RECORD_TAG_BYTES);

export const RECORD_KIND = {
  /** A copied extent. */
  data: 1,
  /** A guest's write. */
  mirror: 2,
  /** A range that reads as zeroes and allocates nothing. */
  hole: 3,
  /** `length` is the new size. */
  resize: 4,
  /** Target to source: everything up to and including `seq` has taken effect. */
  ack: 5,
  /** What has taken effect before it is to be on stable storage; not acknowledged, but `synced`. */
  sync: 6,
  /** Target to source: every sync of `image` up to and including `seq` is done. */
  synced: 7,
} as const;

export type RecordKind = (typeof RECORD_KIND)[keyof typeof RECORD_KIND];

export const hasPayload = (kind: RecordKind): boolean =>
  kind === RECORD_KIND.data || kind === RECORD_KIND.mirror;

/** A record as it was received. */
export interface StreamRecord {
  readonly kind: RecordKind;
  readonly image: number;
  readonly offset: Bytes;
  readonly length: Bytes;
  readonly seq: number;
  readonly payload: Uint8Array;
}

const IMAGE_MAX = 0xffff;
const WORD = 2 ** 32;

const checked = (value: number, what: string): number => {
  if (!Number.isSafeInteger(value) || value < 0)
    throw new MigrateFsError('INVALID_ARGUMENT', `${what} of a record out of range: ${value}`);
  return value;
};

/** Writes the head of a record into memory that has its payload already, or will have; allocates nothing. */
export class RecordHead {
  readonly #words: Uint32Array;

  /** Over the `RECORD_HEAD_BYTES` at `byteOffset`, a multiple of 8. The machine is little endian (x64, arm64). */
  constructor(memory: ArrayBufferLike, byteOffset: number) {
    this.#words = new Uint32Array(memory, byteOffset, RECORD_HEAD_BYTES / Uint32Array.BYTES_PER_ELEMENT);
  }

  /**
   * Returns how long the record is, head and payload; its checksum is for `RecordSeal`. INVALID_ARGUMENT: a number that
   * the head cannot hold, or too long a payload.
   */
  put(kind: RecordKind, image: number, offset: number, length: number, seq: number): number {
    if (checked(image, 'image') > IMAGE_MAX)
      throw new MigrateFsError('INVALID_ARGUMENT', `image of a record out of range: ${image}`);
    const payload = hasPayload(kind) ? length : 0;
    if (payload > RECORD_PAYLOAD_BYTES_MAX)
      throw new MigrateFsError('INVALID_ARGUMENT', `record payload of ${payload} bytes`);
    const words = this.#words;
    words[4] = checked(offset, 'offset');
    words[5] = offset / WORD;
    words[6] = checked(length, 'length');
    words[7] = length / WORD;
    words[8] = checked(seq, 'seq');
    words[9] = seq / WORD;
    words[0] = RECORD_HEADER_BYTES + payload;
    words[1] = 0;
    words[2] = kind | (image << 16);
    words[3] = 0;
    return RECORD_HEAD_BYTES + payload;
  }
}
