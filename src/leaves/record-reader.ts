import assert from 'node:assert/strict';
import { createDecipheriv } from 'node:crypto';
import { recordChecksum } from './checksum.js';
import { MigrateFsError } from './errors.js';
import { CIPHER, RecordKey } from './record-seal.js';
import type { RecordKind, StreamRecord } from './stream-record.js';
import {
  hasPayload,
  RECORD_BYTES_MAX,
  RECORD_HEADER_BYTES,
  RECORD_KIND,
  RECORD_PAYLOAD_BYTES_MAX,
  RECORD_PREFIX_BYTES,
  RECORD_TAG_BYTES,
} from './stream-record.js';
import type { Bytes } from './units.js';
import { bytes, KiB, MiB } from './units.js';

const MEMORY_BYTES_DEFAULT = bytes(2 * MiB + RECORD_BYTES_MAX);
/** With less room behind it than this, what has come of a record is moved to the front. */
const ROOM_BYTES_MIN = bytes(256 * KiB);

const KINDS: readonly number[] = Object.values(RECORD_KIND);
const NOTHING = new Uint8Array(0);

/** Offsets in the header of a record. */
const AT = { kind: 0, image: 2, reserved: 4, offset: 8, length: 16, seq: 24 } as const;

type Written = { -readonly [K in keyof StreamRecord]: StreamRecord[K] };

const viewOf = (memory: Uint8Array): DataView =>
  new DataView(memory.buffer, memory.byteOffset, memory.byteLength);

const uint64 = (view: DataView, at: number): number => {
  const value = view.getUint32(at + 4, true) * 2 ** 32 + view.getUint32(at, true);
  if (!Number.isSafeInteger(value))
    throw new MigrateFsError('INVALID_ARGUMENT', `uint64 out of range in a record: ${value}`);
  return value;
};

/**
 * Parses the bytes of a stream into records, in memory of its own that they are received into. Nothing of a record is
 * given out before its checksum or tag was found right.
 */
export class RecordReader {
  readonly #key: RecordKey | null;
  readonly #memory: Uint8Array;
  readonly #view: DataView;
  readonly #bodyMin: number;
  readonly #bodyMax: number;
  readonly #record: Written = {
    kind: RECORD_KIND.ack,
    image: 0,
    offset: bytes(0),
    length: bytes(0),
    seq: 0,
    payload: NOTHING,
  };
  /** What was received and not taken lies between these. */
  #begin = 0;
  #end = 0;
  /** Of the record that begins there, as far as is known: its prefix, then all of it. */
  #wanted = RECORD_PREFIX_BYTES;
  #counter = 0;

  /** `key`: that of the peer's `RecordSeal`. `memoryBytes`: at least `RECORD_BYTES_MAX`. */
  constructor(key: Uint8Array | null, memoryBytes: number = MEMORY_BYTES_DEFAULT) {
    assert(memoryBytes >= RECORD_BYTES_MAX);
    this.#key = key && new RecordKey(key);
    this.#memory = new Uint8Array(memoryBytes);
    this.#view = viewOf(this.#memory);
    const tag = key ? RECORD_TAG_BYTES : 0;
    this.#bodyMin = RECORD_HEADER_BYTES + tag;
    this.#bodyMax = RECORD_HEADER_BYTES + RECORD_PAYLOAD_BYTES_MAX + tag;
  }

  /** Whether a record has begun and was not taken: at the end of the stream it was cut short. */
  get midRecord(): boolean {
    return this.#begin < this.#end;
  }

  /**
   * Where to receive into, once `next` has returned undefined: never empty then, and room for the rest of the record
   * that has begun.
   */
  space(): Uint8Array {
    const held = this.#end - this.#begin;
    if (held === 0) this.#begin = this.#end = 0;
    const room = this.#memory.length - this.#end;
    if (this.#begin > 0 && (room < this.#wanted - held || room < ROOM_BYTES_MIN)) {
      this.#memory.copyWithin(0, this.#begin, this.#end);
      this.#begin = 0;
      this.#end = held;
    }
    assert(this.#end < this.#memory.length, 'whole records wait to be taken');
    return this.#memory.subarray(this.#end);
  }

  /** So many bytes have been written to the front of `space()`. */
  received(count: number): void {
    assert(count >= 0 && this.#end + count <= this.#memory.length);
    this.#end += count;
  }

  /**
   * The next record, if all of it has come: one object, written anew by each call. Its payload is valid until the next
   * call of `space`, and until the next call of `next` when records are sealed. INVALID_ARGUMENT: a length over the
   * limit, an unknown kind, a number past 2^53 - 1, a payload that is not as long as the header says. DATA_LOSS: wrong
   * CRC or tag. After an error the stream cannot be understood any more.
   */
  next(): StreamRecord | undefined {
    const held = this.#end - this.#begin;
    if (held < RECORD_PREFIX_BYTES) {
      this.#wanted = RECORD_PREFIX_BYTES;
      return undefined;
    }
    const length = this.#view.getUint32(this.#begin, true);
    if (length < this.#bodyMin || length > this.#bodyMax)
      throw new MigrateFsError('INVALID_ARGUMENT', `record body of ${length} bytes`);
    this.#wanted = RECORD_PREFIX_BYTES + length;
    if (held < this.#wanted) return undefined;
    const at = this.#begin + RECORD_PREFIX_BYTES;
    const body = this.#memory.subarray(at, at + length);
    const crc = this.#view.getUint32(this.#begin + 4, true);
    if (this.#key) {
      const opened = this.#open(this.#key, body, crc);
      this.#read(viewOf(opened), 0, opened);
    } else {
      if (recordChecksum(body) !== crc) throw new MigrateFsError('DATA_LOSS', 'record with a wrong CRC-32');
      this.#read(this.#view, at, body);
    }
    this.#begin += this.#wanted;
    this.#wanted = RECORD_PREFIX_BYTES;
    return this.#record;
  }

  #open(key: RecordKey, body: Uint8Array, crc: number): Uint8Array {
    const tagAt = body.length - RECORD_TAG_BYTES;
    const decipher = createDecipheriv(CIPHER, key.secret, key.nonce(this.#counter));
    decipher.setAAD(this.#memory.subarray(this.#begin, this.#begin + 4));
    decipher.setAuthTag(body.subarray(tagAt));
    const opened = decipher.update(body.subarray(0, tagAt));
    try {
      decipher.final();
    } catch (error) {
      throw new MigrateFsError(
        'DATA_LOSS',
        'record that was not sealed by the peer, or not as the next one',
        {
          cause: error,
        },
      );
    }
    if (crc !== 0) throw new MigrateFsError('DATA_LOSS', 'sealed record with a CRC-32');
    this.#counter++;
    return opened;
  }

  /** Fills the record in from `body`, whose header is at `at` of `view`. */
  #read(view: DataView, at: number, body: Uint8Array): void {
    const record = this.#record;
    const kind = view.getUint16(at + AT.kind, true);
    if (!KINDS.includes(kind) || view.getUint32(at + AT.reserved, true) !== 0)
      throw new MigrateFsError('INVALID_ARGUMENT', `record of the unknown kind ${kind}`);
    record.kind = kind as RecordKind;
    record.image = view.getUint16(at + AT.image, true);
    record.offset = uint64(view, at + AT.offset) as Bytes;
    record.length = uint64(view, at + AT.length) as Bytes;
    record.seq = uint64(view, at + AT.seq);
    const payload = body.length - RECORD_HEADER_BYTES;
    if (payload !== (hasPayload(record.kind) ? record.length : 0))
      throw new MigrateFsError(
        'INVALID_ARGUMENT',
        `record of kind ${kind} and length ${record.length} with ${payload} bytes of payload`,
      );
    record.payload = payload === 0 ? NOTHING : body.subarray(RECORD_HEADER_BYTES);
  }
}
