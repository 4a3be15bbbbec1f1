import { alignedBytes } from '../../fs/kernel/aligned-memory.js';
import { addressNumberOf } from '../../fs/libc.js';
import { RecordSeal } from '../../leaves/record-seal.js';
import { STAGGER_BYTES } from '../../leaves/staggered-buffer.js';
import type { RecordKind } from '../../leaves/stream-record.js';
import { RECORD_HEAD_BYTES, RecordHead } from '../../leaves/stream-record.js';

/** Records that are sent with one call, one behind the other in memory of this object's own. */
export class RecordPacket {
  readonly memory: Buffer;
  /** Of the first byte of `memory`. */
  readonly address: number;
  readonly #seal: RecordSeal;
  readonly #recordsMax: number;
  /** Kind, offset, length and payload bytes of each record. */
  readonly #records: Float64Array;
  /** Made apart: its place in the memory is as odd as the offset, which need not be a multiple of anything. */
  readonly #headBytes = new Uint8Array(RECORD_HEAD_BYTES);
  readonly #head = new RecordHead(this.#headBytes.buffer, 0);
  #begin = 0;
  #end = 0;
  #count = 0;

  constructor(bytes: number, recordsMax: number, key: Uint8Array | null) {
    const { buffer, byteOffset } = alignedBytes(STAGGER_BYTES + bytes, RECORD_HEAD_BYTES);
    this.memory = Buffer.from(buffer, byteOffset + STAGGER_BYTES, bytes);
    this.address = addressNumberOf(this.memory);
    this.#seal = new RecordSeal(key);
    this.#recordsMax = recordsMax;
    this.#records = new Float64Array(4 * recordsMax);
  }

  /** Records that are in it. */
  get count(): number {
    return this.#count;
  }

  get full(): boolean {
    return this.#count === this.#recordsMax;
  }

  /** Where the payload of the next record comes in the memory. */
  get payloadAt(): number {
    return this.#end + RECORD_HEAD_BYTES;
  }

  /** Takes everything out; the payload of the first record comes to `payloadAt` in the memory. */
  clear(payloadAt = RECORD_HEAD_BYTES): void {
    this.#begin = this.#end = payloadAt - RECORD_HEAD_BYTES;
    this.#count = 0;
  }

  /** A record whose `payload` bytes are in the memory. */
  add(kind: RecordKind, offset: number, length: number, payload: number): void {
    const records = this.#records;
    const at = 4 * this.#count++;
    records[at] = kind;
    records[at + 1] = offset;
    records[at + 2] = length;
    records[at + 3] = payload;
    this.#end += RECORD_HEAD_BYTES + payload;
  }

  /** The bytes to send. `nextSequence` numbers the records; their counters are one less (`RecordSeal`). */
  seal(image: number, nextSequence: () => number): Uint8Array {
    const { memory } = this;
    const records = this.#records;
    const apart: Uint8Array[] = [];
    let at = this.#begin;
    for (let i = 0; i < this.#count; i++) {
      const end = at + RECORD_HEAD_BYTES + records[4 * i + 3]!;
      const sequence = nextSequence();
      this.#head.put(records[4 * i] as RecordKind, image, records[4 * i + 1]!, records[4 * i + 2]!, sequence);
      memory.set(this.#headBytes, at);
      const record = memory.subarray(at, end);
      const sealed = this.#seal.seal(record, sequence - 1);
      if (sealed !== record) apart.push(sealed);
      at = end;
    }
    return apart.length > 0 ? Buffer.concat(apart) : memory.subarray(this.#begin, this.#end);
  }
}
