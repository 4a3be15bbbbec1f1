import t from 'tap';
import { KiB, MiB } from '../../src/leaves/units.js';
import { BufferPool } from '../../src/replica/source/buffer-pool.js';

t.test('a buffer holds what was asked for, and less than twice of it', async (t) => {
  const pool = new BufferPool();
  for (const length of [4 * KiB, 4 * KiB + 1, 60 * KiB, 64 * KiB, 500 * KiB, MiB]) {
    const buffer = pool.take(length);
    t.ok(buffer.length >= length && buffer.length < 2 * length, `${length}: ${buffer.length}`);
  }
});

t.test('what is given back is used again for the same size only', async (t) => {
  const pool = new BufferPool();
  const small = pool.take(64 * KiB);
  pool.give(small);
  t.not(pool.take(512 * KiB), small);
  t.equal(pool.take(40 * KiB), small);
  t.not(pool.take(64 * KiB), small, 'once');
});

t.test('a burst is not kept, and clearing keeps nothing', async (t) => {
  const pool = new BufferPool();
  const taken = Array.from({ length: 200 }, () => pool.take(512 * KiB));
  t.equal(pool.freeBytes, 0);
  for (const buffer of taken) pool.give(buffer);
  t.equal(pool.freeBytes, 32 * MiB);
  pool.clear();
  t.equal(pool.freeBytes, 0);
});
