import protobuf from 'protobufjs/minimal.js';
import { checksum } from '../../leaves/checksum.js';
import { MigrateFsError } from '../../leaves/errors.js';
import { bytes, KiB, MiB } from '../../leaves/units.js';
import { migratefs } from './generated/data.js';
import type { PayloadChunks } from './payload.js';
import { payloadLength } from './payload.js';

import data = migratefs.data;

/** Raised whenever a peer that knows only the version before could misread what is sent. */
export const PROTOCOL_VERSION = 2;

/** Header length, payload length, CRC32C: three little-endian 32-bit words. */
export const FRAME_PREFIX_BYTES = 12;
export const FRAME_HEADER_BYTES_MAX = bytes(64 * KiB);
export const FRAME_PAYLOAD_BYTES_MAX = bytes(1 * MiB);

interface Bodies {
  readonly hello: data.Hello;
  readonly helloReply: data.HelloReply;
  readonly data: data.Data;
  readonly hole: data.Hole;
  readonly resize: data.Resize;
  readonly allocate: data.Allocate;
  readonly sync: data.Sync;
  readonly ack: data.Ack;
  readonly digestRequest: data.DigestRequest;
  readonly digestReply: data.DigestReply;
  readonly phase: data.Phase;
  readonly cutoverRequest: data.CutoverRequest;
  readonly cutoverOffer: data.CutoverOffer;
  readonly cutoverTaken: data.CutoverTaken;
  readonly discard: data.Discard;
  readonly discarded: data.Discarded;
  readonly ping: data.Ping;
  readonly failure: data.Failure;
  readonly streamHello: data.StreamHello;
  readonly streamReply: data.StreamReply;
}

/** A decoded frame: `body` names the one field that is there. Absent scalars have their proto3 defaults. */
export type Frame = {
  [K in keyof Bodies]: { readonly seq: number; readonly body: K } & { readonly [P in K]: Bodies[K] };
}[keyof Bodies];

/** A frame to send; exactly one body field set. */
export type FrameProperties = data.Frame.$Properties;

/**
 * The buffers to write for one frame: prefix and header in one, then the payload chunks themselves, not copied; they
 * must not change until they have left.
 */
export const encodeFrame = (frame: FrameProperties, payload: PayloadChunks = []): Uint8Array[] => {
  const header = data.Frame.encode(frame).finish();
  const length = payloadLength(payload);
  if (header.length > FRAME_HEADER_BYTES_MAX || length > FRAME_PAYLOAD_BYTES_MAX)
    throw new MigrateFsError(
      'INVALID_ARGUMENT',
      `frame too large: header ${header.length}, payload ${length} bytes`,
    );
  const head = Buffer.allocUnsafe(FRAME_PREFIX_BYTES + header.length);
  head.set(header, FRAME_PREFIX_BYTES);
  let crc = checksum(header);
  for (const chunk of payload) crc = checksum(chunk, crc);
  head.writeUInt32LE(header.length, 0);
  head.writeUInt32LE(length, 4);
  head.writeUInt32LE(crc, 8);
  return [head, ...payload];
};

const VARINT_BYTES_MAX = 10;

/** Reads a uint64 as a number, where protobufjs would make a Long. RangeError past 2^53 - 1. */
function readUint64(this: protobuf.Reader): number {
  let value = 0;
  let factor = 1;
  for (let i = 0; i < VARINT_BYTES_MAX && this.pos < this.len; i++) {
    const byte = this.buf[this.pos++]!;
    value += (byte & 0x7f) * factor;
    if (byte > 0x7f) factor *= 0x80;
    else if (Number.isSafeInteger(value)) return value;
    else throw new RangeError(`uint64 out of range: ${value}`);
  }
  throw new RangeError('varint too long');
}

class HeaderReader extends protobuf.BufferReader {}
// Its type says Long.
Object.assign(HeaderReader.prototype, { uint64: readUint64 });

/** Decodes a header whose CRC was right. INVALID_ARGUMENT: not a `Frame`, or one of no kind known here. */
export const decodeHeader = (header: Uint8Array): Frame => {
  let frame: data.Frame;
  try {
    frame = data.Frame.decode(new HeaderReader(header));
  } catch (error) {
    throw new MigrateFsError('INVALID_ARGUMENT', 'undecodable frame header', { cause: error });
  }
  if (!frame.body) throw new MigrateFsError('INVALID_ARGUMENT', 'frame of an unknown kind');
  return frame as unknown as Frame;
};
