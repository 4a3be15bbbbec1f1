import { checksum } from '../../leaves/checksum.js';
import { MigrateFsError } from '../../leaves/errors.js';
import type { Frame } from './frame.js';
import {
  decodeHeader,
  FRAME_HEADER_BYTES_MAX,
  FRAME_PAYLOAD_BYTES_MAX,
  FRAME_PREFIX_BYTES,
} from './frame.js';
import type { PayloadChunks } from './payload.js';

/** What is being gathered: the fixed prefix, the header it announces, the payload it announces. */
type Stage = 'prefix' | 'header' | 'payload';

/**
 * Parses a byte stream into frames as the bytes arrive. Payload is handed on in the pieces it came in, never joined;
 * memory held is at most one frame, and its lengths are checked before any of it is kept.
 */
export class FrameReader {
  readonly #prefix = Buffer.alloc(FRAME_PREFIX_BYTES);
  #stage: Stage = 'prefix';
  #missing = FRAME_PREFIX_BYTES;
  #header: Buffer[] = [];
  #payload: Buffer[] = [];
  #payloadLength = 0;
  #crcExpected = 0;
  #crc = 0;

  /** Whether a frame has begun and is not whole yet. */
  get midFrame(): boolean {
    return this.#stage !== 'prefix' || this.#missing !== FRAME_PREFIX_BYTES;
  }

  /**
   * Takes the next bytes; calls `onFrame` for each frame they complete. `chunk` must not be changed afterwards.
   * INVALID_ARGUMENT: a length over the limit, an undecodable header, a payload without `data`. DATA_LOSS: wrong CRC.
   * After an error the stream cannot be understood any more.
   */
  push(chunk: Buffer, onFrame: (frame: Frame, payload: PayloadChunks) => void): void {
    let at = 0;
    while (at < chunk.length) {
      const piece = chunk.subarray(at, at + this.#missing);
      at += piece.length;
      this.#take(piece);
      while (this.#missing === 0) {
        const whole = this.#advance();
        if (whole) onFrame(whole.frame, whole.payload);
      }
    }
  }

  #take(piece: Buffer): void {
    switch (this.#stage) {
      case 'prefix':
        this.#prefix.set(piece, FRAME_PREFIX_BYTES - this.#missing);
        break;
      case 'header':
        this.#header.push(piece);
        this.#crc = checksum(piece, this.#crc);
        break;
      case 'payload':
        this.#payload.push(piece);
        this.#crc = checksum(piece, this.#crc);
        break;
      default:
        this.#stage satisfies never;
    }
    this.#missing -= piece.length;
  }

  /** The stage is complete: enters the next one, or ends the frame. */
  #advance(): { frame: Frame; payload: PayloadChunks } | undefined {
    switch (this.#stage) {
      case 'prefix':
        this.#begin();
        return undefined;
      case 'header':
        this.#stage = 'payload';
        this.#missing = this.#payloadLength;
        if (this.#missing > 0) return undefined;
        return this.#end();
      case 'payload':
        return this.#end();
      default:
        return this.#stage satisfies never;
    }
  }

  #begin(): void {
    const headerLength = this.#prefix.readUInt32LE(0);
    const payloadLength = this.#prefix.readUInt32LE(4);
    if (headerLength === 0 || headerLength > FRAME_HEADER_BYTES_MAX)
      throw new MigrateFsError('INVALID_ARGUMENT', `frame header of ${headerLength} bytes`);
    if (payloadLength > FRAME_PAYLOAD_BYTES_MAX)
      throw new MigrateFsError('INVALID_ARGUMENT', `frame payload of ${payloadLength} bytes`);
    this.#payloadLength = payloadLength;
    this.#crcExpected = this.#prefix.readUInt32LE(8);
    this.#crc = 0;
    this.#stage = 'header';
    this.#missing = headerLength;
  }

  #end(): { frame: Frame; payload: PayloadChunks } {
    if (this.#crc !== this.#crcExpected) throw new MigrateFsError('DATA_LOSS', 'frame with a wrong CRC32C');
    const header = this.#header.length === 1 ? this.#header[0]! : Buffer.concat(this.#header);
    const payload = this.#payload;
    this.#header = [];
    this.#payload = [];
    this.#stage = 'prefix';
    this.#missing = FRAME_PREFIX_BYTES;
    const frame = decodeHeader(header);
    if (payload.length > 0 && frame.body !== 'data')
      throw new MigrateFsError('INVALID_ARGUMENT', `payload with a ${frame.body} frame`);
    return { frame, payload };
  }
}
