import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { TRANSPORTS } from '../posix/compare.js';
import { runOk } from '../support/run.js';
import { scratchDir } from '../support/scratch.js';
import { TestDaemon } from '../support/test-daemon.js';

for (const transport of TRANSPORTS) {
  void t.test(`${transport}: mounted over the image folder itself`, async (t) => {
    const folder = scratchDir(t, 'over');
    mkdirSync(join(folder, 'deep/er'), { recursive: true });
    writeFileSync(join(folder, 'before'), 'before the mount');
    writeFileSync(join(folder, 'deep/er/file'), 'deep');

    const daemon = await TestDaemon.start(t, { transport, imageDir: folder, mountpoint: folder });
    t.ok(daemon.mounted);
    t.equal(readFileSync(join(folder, 'before'), 'utf8'), 'before the mount');
    t.equal(readFileSync(join(folder, 'deep/er/file'), 'utf8'), 'deep');
    writeFileSync(join(folder, 'during'), 'during the mount');
    renameSync(join(folder, 'deep/er'), join(folder, 'moved'));
    rmSync(join(folder, 'before'));
    await daemon.stop();

    t.notOk(daemon.mounted);
    t.equal(readFileSync(join(folder, 'during'), 'utf8'), 'during the mount');
    t.equal(readFileSync(join(folder, 'moved/file'), 'utf8'), 'deep');
    t.notOk(existsSync(join(folder, 'before')));
  });

  void t.test(`${transport}: the image folder is a file system of its own`, async (t) => {
    const folder = scratchDir(t, 'tmpfs');
    await runOk('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', folder]);
    const daemon = await TestDaemon.start(t, { transport, imageDir: folder, mountpoint: folder });
    writeFileSync(join(folder, 'file'), 'on tmpfs');
    t.throws(() => writeFileSync(join(folder, 'large'), Buffer.alloc(16 << 20)), { code: 'ENOSPC' });
    rmSync(join(folder, 'large'));
    await daemon.stop();
    t.equal(readFileSync(join(folder, 'file'), 'utf8'), 'on tmpfs', 'the tmpfs is still mounted below');
  });
}
