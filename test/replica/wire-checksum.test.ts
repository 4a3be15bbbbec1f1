/** CRC-32C of the block stream: two implementations by size, one value. */
import { crc32c } from '@node-rs/crc32';
import fc from 'fast-check';
import t from 'tap';
import { checksum } from '../../src/replica/wire/checksum.js';

t.test('the test vectors of RFC 3720, B.4', async (t) => {
  const ascending = Buffer.from(Array.from({ length: 32 }, (_, i) => i));
  t.equal(checksum(Buffer.alloc(32)), 0x8a9136aa, '32 bytes of zeroes');
  t.equal(checksum(Buffer.alloc(32, 0xff)), 0x62a8ab43, '32 bytes of ones');
  t.equal(checksum(ascending), 0x46dd794e, '32 bytes incrementing');
  t.equal(checksum(Buffer.from(ascending.toReversed())), 0x113fdb5c, '32 bytes decrementing');
  t.equal(checksum(Buffer.from('123456789')), 0xe3069283);
});

t.test('property: pieces of any sizes give what the whole gives', async () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 200 }), { maxLength: 6 }), (pieces) => {
      const inPieces = pieces.reduce((crc, piece) => checksum(piece, crc), 0);
      return inPieces === crc32c(Buffer.concat(pieces)) && inPieces === checksum(Buffer.concat(pieces));
    }),
  );
});
