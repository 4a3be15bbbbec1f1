import { closeSync, mkdtempSync, openSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { contentStamp } from '../../src/fs/kernel/content-stamp.js';
import { StatBuffer } from '../../src/fs/stat-buffer.js';
import { millis } from '../../src/leaves/units.js';

t.test('a stamp tells content apart by size and time, and trusts no time that is too recent', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'mfs-stamp-'));
  t.teardown(() => rmSync(dir, { recursive: true }));
  const path = join(dir, 'file');
  const stampOf = (content: string, mtime: number, wall: number): string => {
    writeFileSync(path, content);
    utimesSync(path, 0, mtime);
    const fd = openSync(path, 'r');
    const stat = new StatBuffer();
    stat.ofDescriptor(fd);
    closeSync(fd);
    return contentStamp(stat, millis(wall));
  };
  t.equal(stampOf('abc', 1000, 2_000_000), stampOf('abd', 1000, 3_000_000));
  t.not(stampOf('abc', 1000, 2_000_000), stampOf('abcd', 1000, 2_000_000));
  t.not(stampOf('abc', 1000, 2_000_000), stampOf('abc', 1000.25, 2_000_000));
  t.equal(stampOf('abc', 1000, 1_000_010), '');
  t.not(stampOf('abc', 1000, 1_000_021), '');
});
