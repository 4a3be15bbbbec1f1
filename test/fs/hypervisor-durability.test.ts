/**
 * What a guest was told is on disk has been synced in the backing file. The backing folder is a mount itself, with the
 * image routed: its stand-in for the replica thread counts the syncs that arrive.
 */
import { closeSync, constants, openSync, writeFileSync } from 'node:fs';
import koffi from 'koffi';
import t from 'tap';
import { alignedBytes } from '../../src/fs/kernel/aligned-memory.js';
import { KiB, MiB } from '../../src/leaves/units.js';
import { libc, SharedMapping } from '../posix/libc.js';
import { KernelMount } from '../support/kernel-mount.js';
import { runOk } from '../support/run.js';
import { TestDaemon } from '../support/test-daemon.js';

const { O_RDWR, O_DIRECT } = constants;
const RWF_DSYNC = 2;
const RWF_SYNC = 4;

const pwritev2 = koffi
  .load('libc.so.6')
  .func('int64_t pwritev2(int fd, const void *vectors, int count, int64_t offset, int flags)');

/** Direct opens get no FSYNC after a WRITE: the kernel says O_DSYNC in `fuse_write_in.flags` instead. */

const memory = alignedBytes(4 * KiB, 0).fill(7);
/** One 4 KiB write with flags of its own. */
const write = (fd: number, offset: number, flags: number): number => {
  const vector = BigUint64Array.of(BigInt(koffi.address(memory)), BigInt(memory.length));
  return Number(pwritev2(fd, vector, 1, offset, flags));
};

t.test('the backing file is synced', async (t) => {
  const below = await KernelMount.start(t);
  writeFileSync(below.path('image'), Buffer.alloc(MiB));
  t.equal(await below.tell('route image'), 'routed');
  const daemon = await TestDaemon.start(t, { imageDir: below.mountpoint });
  const image = daemon.at('image');
  const count = async (): Promise<number> =>
    (JSON.parse(await below.tell('counts')) as { fsync?: number }).fsync ?? 0;
  /** Syncs of the backing file while `act` runs. */
  const syncs = async (act: () => unknown): Promise<number> => {
    const before = await count();
    await act();
    return (await count()) - before;
  };

  for (const [name, flags] of Object.entries({ buffered: O_RDWR, direct: O_RDWR | O_DIRECT })) {
    await t.test(`${name}: by fsync and fdatasync, not by a plain write`, async (t) => {
      const fd = openSync(image, flags);
      t.equal(await syncs(() => t.equal(write(fd, 0, 0), memory.length)), 0, 'a plain write');
      t.equal(await syncs(() => libc.fsync(fd)), 1, 'fsync');
      t.equal(await syncs(() => libc.fdatasync(fd)), 1, 'fdatasync');
      closeSync(fd);
    });

    await t.test(`${name}: by a write with RWF_DSYNC or RWF_SYNC, before it returns`, async (t) => {
      const fd = openSync(image, flags);
      for (const flag of [RWF_DSYNC, RWF_SYNC]) {
        const found = await syncs(() => t.equal(write(fd, 64 * KiB, flag), memory.length));
        t.ok(found >= 1, `flag ${flag}: ${found} syncs`);
      }
      closeSync(fd);
    });
  }

  await t.test('by msync of mapped pages', async (t) => {
    const fd = openSync(image, O_RDWR);
    const mapping = new SharedMapping(fd, MiB);
    mapping.write(5000, Buffer.from('mapped'));
    t.ok((await syncs(() => t.equal(mapping.sync(), 0))) >= 1);
    mapping.unmap();
    closeSync(fd);
  });

  for (const cache of ['none', 'writeback'])
    await t.test(`cache=${cache}: by a guest's flush and its forced writes`, async (t) => {
      const io = (...commands: string[]): Promise<unknown> =>
        runOk('qemu-io', ['-f', 'raw', '-t', cache, ...commands.flatMap((each) => ['-c', each]), image]);
      // Closing an image flushes it as well: it is the difference that counts.
      const plain = await syncs(() => io('write -q 0 4k'));
      t.ok((await syncs(() => io('write -q 0 4k', 'flush', 'write -q 4k 4k'))) > plain, 'flush');
      t.ok((await syncs(() => io('write -q -f 0 4k', 'write -q 4k 4k'))) > plain, 'forced');
    });

  await daemon.stop();
});
