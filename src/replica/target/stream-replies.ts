import { SharedLock } from '../../fs/shared-lock.js';
import { FOR_EVER, sendWhole } from '../../fs/stream-socket.js';
import { RecordSeal } from '../../leaves/record-seal.js';
import type { RECORD_KIND } from '../../leaves/stream-record.js';
import { RECORD_HEAD_BYTES, RecordHead } from '../../leaves/stream-record.js';

const LOCK = 0;
/** A double: how many have been sent. */
const SENT_BYTE = 8;
const BYTES = 16;

/** What a target's threads send over its stream, one record after the other whoever sends it. */
export class StreamReplies {
  readonly #lock: SharedLock;
  readonly #sent: Float64Array;
  readonly #fd: number;
  readonly #seal: RecordSeal;
  readonly #record = new Uint8Array(RECORD_HEAD_BYTES);
  readonly #head = new RecordHead(this.#record.buffer, 0);

  static shared(): SharedArrayBuffer {
    return new SharedArrayBuffer(BYTES);
  }

  /** `shared`: the same of all threads. `key`: as of `RecordSeal`. */
  constructor(shared: SharedArrayBuffer, fd: number, key: Uint8Array | null) {
    this.#lock = new SharedLock(new Int32Array(shared), LOCK);
    this.#sent = new Float64Array(shared, SENT_BYTE, 1);
    this.#fd = fd;
    this.#seal = new RecordSeal(key);
  }

  /** False: the stream is broken. Waits for as long as the source takes nothing; who shuts the socket down ends it. */
  send(kind: typeof RECORD_KIND.ack | typeof RECORD_KIND.synced, image: number, sequence: number): boolean {
    this.#head.put(kind, image, 0, 0, sequence);
    this.#lock.acquire();
    try {
      return sendWhole(this.#fd, this.#seal.seal(this.#record, this.#sent[0]!++), FOR_EVER);
    } finally {
      this.#lock.release();
    }
  }
}
