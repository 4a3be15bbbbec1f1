import t from 'tap';
import { addressOf } from '../../src/fs/libc.js';
import { STAGGER_BYTES, staggeredBuffer } from '../../src/leaves/staggered-buffer.js';
import { KiB, MiB } from '../../src/leaves/units.js';

const PAGE_BYTES = 4 * KiB;
const ALIAS_BYTES = 64;

const isNearPage = (place: number): boolean => place < ALIAS_BYTES || place > PAGE_BYTES - ALIAS_BYTES;

t.test('large buffers begin far from where pages begin, where their memory begins at one', async (t) => {
  const kept: Buffer[] = [];
  for (const length of [128 * KiB, 512 * KiB, MiB]) {
    const buffer = staggeredBuffer(length);
    kept.push(buffer);
    const place = Number(addressOf(buffer) % BigInt(PAGE_BYTES));
    // A mapping of its own begins there; what malloc(3) finds in its heap begins anywhere.
    const memory = Number(addressOf(new Uint8Array(buffer.buffer)) % BigInt(PAGE_BYTES));
    t.equal(buffer.length, length);
    t.ok(!isNearPage(place) || !isNearPage(memory), `${length} bytes, ${place} into a page`);
  }
});

t.test('nothing else lies in the memory of a buffer', async (t) => {
  const buffer = staggeredBuffer(4 * KiB);
  t.equal(buffer.byteOffset, STAGGER_BYTES);
  t.equal(buffer.buffer.byteLength, STAGGER_BYTES + 4 * KiB);
});
