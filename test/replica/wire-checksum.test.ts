/** Checksums of frames (CRC-32C) and records (CRC-32): two implementations by size, one value. */
import { crc32, crc32c } from '@node-rs/crc32';
import fc from 'fast-check';
import t from 'tap';
import { checksum, recordChecksum } from '../../src/leaves/checksum.js';

t.test('the test vectors of RFC 3720, B.4', async (t) => {
  const ascending = Buffer.from(Array.from({ length: 32 }, (_, i) => i));
  t.equal(checksum(Buffer.alloc(32)), 0x8a9136aa, '32 bytes of zeroes');
  t.equal(checksum(Buffer.alloc(32, 0xff)), 0x62a8ab43, '32 bytes of ones');
  t.equal(checksum(ascending), 0x46dd794e, '32 bytes incrementing');
  t.equal(checksum(Buffer.from(ascending.toReversed())), 0x113fdb5c, '32 bytes decrementing');
  t.equal(checksum(Buffer.from('123456789')), 0xe3069283);
});

t.test('the test vector of the CRC catalogue for CRC-32/ISO-HDLC', async (t) => {
  t.equal(recordChecksum(Buffer.from('123456789')), 0xcbf43926);
});

t.test('property: pieces of any sizes give what the whole gives', async () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 200 }), { maxLength: 6 }), (pieces) => {
      const whole = Buffer.concat(pieces);
      const inPieces = (each: typeof checksum): number => pieces.reduce((crc, piece) => each(piece, crc), 0);
      return (
        inPieces(checksum) === crc32c(whole) &&
        checksum(whole) === crc32c(whole) &&
        inPieces(recordChecksum) === crc32(whole) &&
        recordChecksum(whole) === crc32(whole)
      );
    }),
  );
});
