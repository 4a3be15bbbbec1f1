/** What of a backing file holds data, for the copier. */
import { closeSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, fallocate } from '../../src/fs/libc.js';
import { KiB, MiB } from '../../src/leaves/units.js';
import { FileImage } from '../../src/replica/source/file-image.js';
import { scratchDir } from '../support/scratch.js';

t.test('G6: a hole that is punched before the copier comes is found, after a while', async (t) => {
  const fd = openSync(join(scratchDir(t, 'file'), 'image'), 'w+');
  t.teardown(() => closeSync(fd));
  writeSync(fd, Buffer.alloc(MiB, 'data'));
  let now = 0;
  const image = new FileImage(fd, 'image', () => now);
  const whole = { offset: 0, length: 512 * KiB, data: true };
  t.same(image.segments(0, 512 * KiB), [whole]);
  t.equal(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4 * KiB, 8 * KiB), 0);
  now = 999;
  t.same(image.segments(0, 512 * KiB), [whole], 'not looked at for each extent');
  now = 1000;
  t.same(image.segments(0, 512 * KiB), [
    { offset: 0, length: 4 * KiB, data: true },
    { offset: 4 * KiB, length: 8 * KiB, data: false },
    { offset: 12 * KiB, length: 500 * KiB, data: true },
  ]);
});
