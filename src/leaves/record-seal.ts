import assert from 'node:assert/strict';
import type { KeyObject } from 'node:crypto';
import { createCipheriv, createSecretKey } from 'node:crypto';
import { recordChecksum } from './checksum.js';
import { RECORD_HEAD_BYTES, RECORD_PREFIX_BYTES, RECORD_TAG_BYTES } from './stream-record.js';

export const CIPHER = 'aes-256-gcm';
const SECRET_BYTES = 32;
const SALT_BYTES = 4;
/** What one direction of a sealed stream is opened and closed with: a key of AES-256, then the salt of its nonces. */
export const RECORD_KEY_BYTES = SECRET_BYTES + SALT_BYTES;
const NONCE_BYTES = SALT_BYTES + 8;

/** The secret of one direction, and the nonce of each of its records: the salt, then the record's number (RFC 5116, 3.2). */
export class RecordKey {
  readonly secret: KeyObject;
  readonly #nonce = new Uint8Array(NONCE_BYTES);
  readonly #number = new DataView(this.#nonce.buffer, SALT_BYTES);

  constructor(key: Uint8Array) {
    assert.equal(key.length, RECORD_KEY_BYTES);
    this.secret = createSecretKey(key.subarray(0, SECRET_BYTES));
    this.#nonce.set(key.subarray(SECRET_BYTES));
  }

  /** Valid until the next call. */
  nonce(counter: number): Uint8Array {
    this.#number.setUint32(0, counter / 2 ** 32);
    this.#number.setUint32(4, counter);
    return this.#nonce;
  }
}

/** Makes records fit to be sent: with a checksum, or sealed with AES-256-GCM. */
export class RecordSeal {
  readonly #key: RecordKey | null;
  #counterLast = -1;

  /** `key`: `RECORD_KEY_BYTES` that only the reader at the other end has, or null where the network is trusted. */
  constructor(key: Uint8Array | null) {
    this.#key = key && new RecordKey(key);
  }

  /**
   * The bytes to send for `record`, a head that `RecordHead` has written and the payload behind it: `record` itself,
   * its checksum filled in, or with a key a sealed copy. `counter` numbers the records of this direction of the stream,
   * from 0 and without a gap, whoever seals them; it counts only with a key, under which none may come twice.
   */
  seal(record: Uint8Array, counter: number): Uint8Array {
    assert(record.length >= RECORD_HEAD_BYTES);
    const body = record.subarray(RECORD_PREFIX_BYTES);
    if (this.#key) return this.#sealed(this.#key, body, counter);
    const crc = recordChecksum(body);
    record[4] = crc;
    record[5] = crc >>> 8;
    record[6] = crc >>> 16;
    record[7] = crc >>> 24;
    return record;
  }

  #sealed(key: RecordKey, body: Uint8Array, counter: number): Uint8Array {
    assert(Number.isSafeInteger(counter) && counter > this.#counterLast, 'a nonce would come twice');
    this.#counterLast = counter;
    const sealed = Buffer.allocUnsafe(RECORD_PREFIX_BYTES + body.length + RECORD_TAG_BYTES);
    sealed.writeUInt32LE(body.length + RECORD_TAG_BYTES, 0);
    sealed.writeUInt32LE(0, 4);
    const cipher = createCipheriv(CIPHER, key.secret, key.nonce(counter));
    cipher.setAAD(sealed.subarray(0, 4));
    sealed.set(cipher.update(body), RECORD_PREFIX_BYTES);
    cipher.final();
    sealed.set(cipher.getAuthTag(), sealed.length - RECORD_TAG_BYTES);
    return sealed;
  }
}
