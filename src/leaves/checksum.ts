import { createRequire } from 'node:module';

/** Not by `import`, which takes 15 ms more of each thread that starts: it searches the list of all platforms for exports. */
const { crc32, crc32c } = createRequire(import.meta.url)('@node-rs/crc32') as typeof import('@node-rs/crc32');

/** Up to so many bytes a table is faster than a call into native code, which also leaves a finalizer for the collector. */
const SMALL_BYTES = 64;

/** Of `bytes`, going on from that of what came before. */
type Checksum = (bytes: Uint8Array, before?: number) => number;

/** `polynomial` reflected, `native` the same over more bytes. */
const checksumOf = (polynomial: number, native: (bytes: Buffer, before?: number) => number): Checksum => {
  const table = Uint32Array.from({ length: 256 }, (_, byte) => {
    let value = byte;
    for (let bit = 0; bit < 8; bit++) value = (value & 1) !== 0 ? (value >>> 1) ^ polynomial : value >>> 1;
    return value;
  });
  return (bytes, before = 0) => {
    if (bytes.length > SMALL_BYTES) return native(bytes as Buffer, before);
    let crc = ~before;
    for (let i = 0; i < bytes.length; i++) crc = (crc >>> 8) ^ table[(crc ^ bytes[i]!) & 0xff]!;
    return ~crc >>> 0;
  };
};

/** CRC-32C (RFC 3720, appendix B.4). */
export const checksum = checksumOf(0x82f63b78, crc32c);

/** CRC-32 (ISO 3309, RFC 1952): finds as much in records of up to a MiB, and takes a quarter of the time here. */
export const recordChecksum = checksumOf(0xedb88320, crc32);
