import type { Bytes } from '../../leaves/units.js';

/** The payload of one frame, in order, as the pieces it arrived in or is sent from. */
export type PayloadChunks = readonly Uint8Array[];

export const payloadLength = (chunks: PayloadChunks): Bytes => {
  let length = 0;
  for (const chunk of chunks) length += chunk.length;
  return length as Bytes;
};
