/** One image seen through several handles, names and processes, and below the mount, at the same time. */
import {
  closeSync,
  constants,
  existsSync,
  fstatSync,
  ftruncateSync,
  linkSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  statSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import t from 'tap';
import { alignedBytes } from '../../src/fs/kernel/aligned-memory.js';
import { KiB } from '../../src/leaves/units.js';
import { SharedMapping } from '../posix/libc.js';
import { descriptorFlags } from '../support/held-backing.js';
import { OtherProcess } from '../support/other-process.js';
import { TestDaemon } from '../support/test-daemon.js';
import { waitFor } from '../support/wait-for.js';

const { O_RDONLY, O_RDWR, O_DIRECT } = constants;
const BLOCK = 4 * KiB;
/** Attributes are cached for one second; the rest is for a slow machine. */
const SEEN_MAX_MS = 5000;

const readBlock = (fd: number, offset: number): string => {
  const block = alignedBytes(BLOCK, 0);
  const length = readSync(fd, block, 0, BLOCK, offset);
  return Buffer.from(block.subarray(0, length)).toString('latin1');
};
const blockOf = (letter: string): string => letter.repeat(BLOCK);
const writeBlock = (fd: number, letter: string, offset: number): number =>
  writeSync(fd, alignedBytes(BLOCK, 0).fill(letter.charCodeAt(0)), 0, BLOCK, offset);

t.test('open files', async (t) => {
  const daemon = await TestDaemon.start(t);
  const { at, below } = { at: daemon.at.bind(daemon), below: daemon.below.bind(daemon) };

  await t.test(
    'direct, buffered, mapped and in another process: each sees every change at once',
    async (t) => {
      writeFileSync(at('shared'), Buffer.alloc(8 * BLOCK, 'o'));
      const buffered = openSync(at('shared'), O_RDWR);
      const direct = openSync(at('shared'), O_RDWR | O_DIRECT);
      const reading = openSync(at('shared'), O_RDONLY);
      const mapping = new SharedMapping(buffered, 8 * BLOCK);
      const other = await OtherProcess.start(t, at('shared'), O_RDWR);
      await other.call('map', 8 * BLOCK);

      const sees = async (letter: string, offset: number, by: string): Promise<void> => {
        const wanted = blockOf(letter);
        t.equal(readBlock(buffered, offset), wanted, `${by}: buffered`);
        t.equal(readBlock(direct, offset), wanted, `${by}: direct`);
        t.equal(readBlock(reading, offset), wanted, `${by}: for reading only`);
        t.equal(mapping.read(offset, BLOCK).toString('latin1'), wanted, `${by}: mapped`);
        t.equal(await other.call('read', offset, BLOCK), wanted, `${by}: another process`);
        t.equal(await other.call('read mapped', offset, BLOCK), wanted, `${by}: mapped by another process`);
      };
      // Twice over the same place: first it is cached nowhere, then wherever something caches.
      for (const letters of ['abcde', 'vwxyz']) {
        writeBlock(direct, letters[0]!, 0);
        await sees(letters[0]!, 0, 'written directly');
        writeBlock(buffered, letters[1]!, 0);
        await sees(letters[1]!, 0, 'written buffered');
        mapping.write(0, Buffer.from(blockOf(letters[2]!)));
        await sees(letters[2]!, 0, 'written by mapping');
        await other.call('write', 0, blockOf(letters[3]!));
        await sees(letters[3]!, 0, 'written by another process');
        await other.call('write mapped', 0, blockOf(letters[4]!));
        await sees(letters[4]!, 0, 'mapped and written by another process');
      }
      t.equal(mapping.sync(), 0);
      t.equal(
        readFileSync(below('shared'), 'latin1').slice(0, BLOCK),
        blockOf('z'),
        'and the backing file has it',
      );
      mapping.unmap();
      for (const fd of [buffered, direct, reading]) closeSync(fd);
      await other.kill();
    },
  );

  await t.test('a reader that was first sees what a later writer does', async (t) => {
    writeFileSync(at('base'), Buffer.alloc(4 * BLOCK, 'o'));
    const reader = await OtherProcess.start(t, at('base'), O_RDONLY);
    const mine = openSync(at('base'), O_RDONLY);
    t.equal(await reader.call('read', 0, 3), 'ooo');
    t.equal(readBlock(mine, 0), blockOf('o'));
    for (const flags of [O_RDWR, O_RDWR | O_DIRECT]) {
      const letter = flags === O_RDWR ? 'b' : 'd';
      const writer = openSync(at('base'), flags);
      writeBlock(writer, letter, 0);
      t.equal(await reader.call('read', 0, BLOCK), blockOf(letter), 'in another process');
      t.equal(readBlock(mine, 0), blockOf(letter), 'in this one');
      writeBlock(writer, 'n', 4 * BLOCK);
      t.equal(readBlock(mine, 4 * BLOCK), blockOf('n'), 'past the old end');
      t.equal(fstatSync(mine).size, 5 * BLOCK);
      ftruncateSync(writer, 4 * BLOCK);
      t.equal(readBlock(mine, 4 * BLOCK), '', 'and gone again');
      t.equal(await reader.call('read', 4 * BLOCK, BLOCK), '');
      closeSync(writer);
    }
    closeSync(mine);
    await reader.kill();
  });

  await t.test('changed below: a new handle sees it at once, an old one within a second', async (t) => {
    writeFileSync(at('changed'), blockOf('o'));
    const old = openSync(at('changed'), O_RDWR);
    t.equal(readBlock(old, 0), blockOf('o'));
    const { mtime } = statSync(below('changed'));
    writeFileSync(below('changed'), blockOf('n'));
    // An image may be put back with its old time.
    utimesSync(below('changed'), mtime, mtime);
    const fresh = openSync(at('changed'), O_RDWR);
    t.equal(readBlock(fresh, 0), blockOf('n'), 'of the same size and time');
    closeSync(fresh);
    await waitFor(() => readBlock(old, 0) === blockOf('n'), 'the old handle reads it', SEEN_MAX_MS);
    writeFileSync(below('changed'), blockOf('n') + blockOf('m'));
    await waitFor(() => fstatSync(old).size === 2 * BLOCK, 'the old handle knows its size', SEEN_MAX_MS);
    t.equal(readBlock(old, BLOCK), blockOf('m'), 'and reads to its end');
    closeSync(old);
  });

  await t.test('renamed below, itself and its folder', async (t) => {
    mkdirSync(at('vm'));
    writeFileSync(at('vm/disk'), 'contents');
    const fd = openSync(at('vm/disk'), O_RDWR);
    renameSync(below('vm/disk'), below('vm/disk2'));
    t.equal(readFileSync(at('vm/disk2'), 'utf8'), 'contents', 'a new name is there at once');
    await waitFor(() => !existsSync(at('vm/disk')), 'the old name goes', SEEN_MAX_MS);
    renameSync(below('vm'), below('vm2'));
    t.equal(statSync(at('vm2/disk2')).ino, fstatSync(fd).ino, 'it is the open file');
    await waitFor(() => !existsSync(at('vm/disk2')), 'the old folder goes', SEEN_MAX_MS);
    writeSync(fd, 'CON', 0);
    t.equal(readFileSync(below('vm2/disk2'), 'utf8'), 'CONtents', 'the open file goes on');
    closeSync(fd);
  });

  await t.test('renamed through the mount, over folders, while open', async (t) => {
    mkdirSync(at('a/b'), { recursive: true });
    mkdirSync(at('other'));
    writeFileSync(at('a/b/disk'), '0000');
    const fd = openSync(at('a/b/disk'), O_RDWR);
    const { ino } = fstatSync(fd);
    const moves: [from: string, to: string, then: string][] = [
      ['a/b/disk', 'other/disk', 'other/disk'],
      ['other', 'a/b/other', 'a/b/other/disk'],
      ['a', 'z', 'z/b/other/disk'],
    ];
    for (const [i, [from, to, then]] of moves.entries()) {
      renameSync(at(from), at(to));
      writeSync(fd, `${i + 1}`, i);
      t.equal(readFileSync(below(then), 'utf8'), '1230'.slice(0, i + 1).padEnd(4, '0'), then);
      t.equal(statSync(at(then)).ino, ino);
    }
    writeFileSync(at('another'), 'x');
    renameSync(at('another'), at('z/b/other/disk'));
    t.equal(fstatSync(fd).nlink, 0, 'replaced by another');
    t.equal(readBlock(fd, 0), '1230');
    closeSync(fd);
  });

  await t.test('hard links share one inode', async (t) => {
    writeFileSync(at('link-a'), blockOf('o'));
    linkSync(at('link-a'), at('link-b'));
    linkSync(below('link-a'), below('link-c'));
    const [a, b, c] = ['link-a', 'link-b', 'link-c'].map((name) => openSync(at(name), O_RDWR)) as [
      number,
      number,
      number,
    ];
    t.equal(new Set([a, b, c].map((fd) => fstatSync(fd).ino)).size, 1);
    await waitFor(() => fstatSync(a).nlink === 3, 'three names', SEEN_MAX_MS);
    const mapping = new SharedMapping(c, BLOCK);
    writeBlock(a, 'n', 0);
    t.equal(readBlock(b, 0), blockOf('n'));
    t.equal(mapping.read(0, 2).toString(), 'nn');
    ftruncateSync(b, 2 * BLOCK);
    t.equal(fstatSync(a).size, 2 * BLOCK);
    t.equal(statSync(at('link-c')).size, 2 * BLOCK);
    unlinkSync(at('link-a'));
    t.equal(statSync(at('link-b')).nlink, 2);
    mapping.unmap();
    for (const fd of [a, b, c]) closeSync(fd);
  });

  for (const where of ['through the mount', 'below'])
    await t.test(`unlinked ${where} while open`, async (t) => {
      writeFileSync(at('gone'), Buffer.alloc(2 * BLOCK, 'o'));
      const fd = openSync(at('gone'), O_RDWR);
      const direct = openSync(at('gone'), O_RDWR | O_DIRECT);
      const { ino } = fstatSync(fd);
      unlinkSync(where === 'below' ? below('gone') : at('gone'));
      await waitFor(() => fstatSync(fd).nlink === 0, 'it has no name', SEEN_MAX_MS);
      if (where !== 'below') t.notOk(existsSync(at('gone')), 'the name is gone at once');
      writeBlock(direct, 'd', BLOCK);
      t.equal(readBlock(fd, BLOCK), blockOf('d'));
      ftruncateSync(fd, 3 * BLOCK);
      t.match(fstatSync(direct), { size: 3 * BLOCK, ino, nlink: 0 });
      closeSync(fd);
      closeSync(direct);
      await waitFor(
        () => descriptorFlags(daemon.pid, 'gone (deleted)').length === 0,
        'the daemon lets it go',
        SEEN_MAX_MS,
      );
    });

  await daemon.stop();
});
