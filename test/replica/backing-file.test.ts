/** Writes to a replica off the thread: in order, together where they are contiguous, each with its own outcome. */
import { closeSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import t from 'tap';
import { createBackingCalls } from '../../src/fs/backing-calls.js';
import { BackingFile } from '../../src/replica/target/backing-file.js';
import { scratchDir, type Teardown } from '../support/scratch.js';

const KIB = 1024;

const openFile = (t: Teardown, flags: 'w+' | 'r' = 'w+'): { file: BackingFile; path: string } => {
  const path = join(scratchDir(t, 'backing'), 'replica.raw');
  if (flags === 'r') closeSync(openSync(path, 'w'));
  const fd = openSync(path, flags);
  t.teardown(() => closeSync(fd));
  return { file: new BackingFile(fd, createBackingCalls()), path };
};

t.test('property: whatever is queued, each byte is that of the last write to it', async (t) => {
  const write = fc.record({
    offset: fc.integer({ min: 0, max: 48 }),
    lengths: fc.array(fc.integer({ min: 0, max: 5 }), { minLength: 1, maxLength: 4 }),
    follows: fc.boolean(),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(write, { minLength: 1, maxLength: 40 }), async (writes) => {
      const { file, path } = openFile(t);
      let size = 0;
      let end = 0;
      const expected = Buffer.alloc(512 * KIB);
      const done = writes.map(({ offset, lengths, follows }, i) => {
        const at = follows ? end : offset * KIB;
        const chunks = lengths.map((length) => Buffer.alloc(length * KIB, i + 1));
        const bytes = Buffer.concat(chunks);
        if (at + bytes.length > expected.length) return Promise.resolve();
        bytes.copy(expected, at);
        end = at + bytes.length;
        if (bytes.length > 0) size = Math.max(size, end);
        return file.write(chunks, at);
      });
      await Promise.all(done);
      return readFileSync(path).equals(expected.subarray(0, size));
    }),
    { numRuns: 50 },
  );
});

t.test('more chunks than one call takes, more bytes than are written together', async (t) => {
  const { file, path } = openFile(t);
  const many = Array.from({ length: 3000 }, (_, i) => Buffer.alloc(512, i));
  const large = Buffer.alloc(1024 * KIB, 'large');
  await Promise.all([
    file.write([large], 0),
    file.write(many.slice(0, 1000), large.length),
    file.write(many.slice(1000, 2000), large.length + 1000 * 512),
    file.write(many.slice(2000), large.length + 2000 * 512),
    file.write([large], large.length + 3000 * 512),
  ]);
  t.ok(readFileSync(path).equals(Buffer.concat([large, ...many, large])));
});

t.test('a failure reaches everyone it concerns, and the next are tried', async (t) => {
  const { file } = openFile(t, 'r');
  const chunk = Buffer.alloc(4 * KIB);
  const results = await Promise.allSettled([0, 4, 8, 100].map((at) => file.write([chunk], at * KIB)));
  t.strictSame(
    results.map((each) =>
      each.status === 'rejected' ? (each.reason as NodeJS.ErrnoException).code : 'written',
    ),
    ['EBADF', 'EBADF', 'EBADF', 'EBADF'],
  );
  await t.rejects(file.write([chunk], 0), { code: 'EBADF' });
});
