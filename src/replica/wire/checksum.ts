import { crc32c } from '@node-rs/crc32';

/** Up to so many bytes a table is faster than a call into native code, which also leaves a finalizer for the collector. */
const SMALL_BYTES = 64;
/** The polynomial of CRC-32C (RFC 3720, appendix B.4), reflected. */
const POLYNOMIAL = 0x82f63b78;

const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = (value & 1) !== 0 ? (value >>> 1) ^ POLYNOMIAL : value >>> 1;
  return value;
});

/** CRC-32C of `bytes`, going on from that of what came before. */
export const checksum = (bytes: Uint8Array, before = 0): number => {
  if (bytes.length > SMALL_BYTES) return crc32c(bytes as Buffer, before);
  let crc = ~before;
  for (let i = 0; i < bytes.length; i++) crc = (crc >>> 8) ^ TABLE[(crc ^ bytes[i]!) & 0xff]!;
  return ~crc >>> 0;
};
