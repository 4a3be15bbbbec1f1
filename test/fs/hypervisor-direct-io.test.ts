/** What reaches the backing file when a hypervisor asks for direct I/O (cache=none, cache=directsync). */
import { createHash } from 'node:crypto';
import { closeSync, constants, openSync, readFileSync, readSync, writeFileSync, writeSync } from 'node:fs';
import { open } from 'node:fs/promises';
import t from 'tap';
import { alignedBytes } from '../../src/fs/kernel/aligned-memory.js';
import { KiB, MiB } from '../../src/leaves/units.js';
import { runFioOk } from '../support/fio.js';
import { descriptorFlags, HeldBacking, type WaitingCall } from '../support/held-backing.js';
import { TestDaemon } from '../support/test-daemon.js';

const { O_RDONLY, O_RDWR, O_WRONLY, O_CREAT, O_DIRECT, O_DSYNC, O_SYNC } = constants;
const OPTIONS = O_DIRECT | O_SYNC | O_DSYNC | O_RDWR | O_WRONLY;
const PAGE_BYTES = 4096n;
const WORKERS = 3;

t.test('the backing file is opened with the flags that were asked for', async (t) => {
  const daemon = await TestDaemon.start(t);
  const wanted = {
    'cache=writeback': O_RDWR,
    'cache=none': O_RDWR | O_DIRECT,
    'cache=directsync': O_RDWR | O_DIRECT | O_DSYNC,
    'cache=writethrough': O_RDWR | O_DSYNC,
    'every attribute too': O_RDWR | O_SYNC,
    'base image': O_RDONLY | O_DIRECT,
    'only written': O_WRONLY | O_DIRECT,
  };
  for (const [name, flags] of Object.entries(wanted)) {
    writeFileSync(daemon.below(name), Buffer.alloc(64 * KiB));
    for (const [image, create] of [
      [name, 0],
      [`${name}, new`, O_CREAT],
    ] as const) {
      const fd = openSync(daemon.at(image), flags | create, 0o600);
      const found = descriptorFlags(daemon.pid, image).map((each) => each & OPTIONS);
      t.strictSame(found, [flags], image);
      closeSync(fd);
    }
  }
  await daemon.stop();
});

/** A request as the backing file gets it. */
const isDirect = (t: Tap, call: WaitingCall, length: number, offset: number): void => {
  t.ok((call.flags & O_DIRECT) !== 0, 'the descriptor is O_DIRECT');
  t.equal(call.args[1]! % PAGE_BYTES, 0n, 'its memory begins on a page');
  t.equal(Number(call.args[2]), length, 'as large as it may be');
  t.equal(Number(call.args[3]), offset, 'where it was asked for');
};
type Tap = Pick<typeof t, 'ok' | 'equal'>;

t.test(
  'direct requests reach the backing file in pieces of 256 KiB, from and to aligned memory',
  async (t) => {
    const held = await HeldBacking.start(t, { workers: WORKERS });
    writeFileSync(held.daemon.at('image'), Buffer.alloc(4 * MiB));
    const file = await open(held.daemon.at('image'), O_RDWR | O_DIRECT);
    const memory = alignedBytes(MiB, 0).fill(5);
    for (const [length, offset] of [
      [4 * KiB, 8 * KiB],
      [64 * KiB, 4 * KiB],
      [256 * KiB, MiB],
      [MiB, 2 * MiB],
    ] as const) {
      const piece = Math.min(length, 256 * KiB);
      await t.test(`${length} bytes at ${offset}`, async (t) => {
        await held.hold();
        const written = file.write(memory, 0, length, offset);
        isDirect(t, (await held.waiting('pwrite64'))[0]!, piece, offset);
        held.letGo();
        t.equal((await written).bytesWritten, length);
        await held.hold();
        const read = file.read(memory, 0, length, offset);
        isDirect(t, (await held.waiting('pread64'))[0]!, piece, offset);
        held.letGo();
        t.equal((await read).bytesRead, length);
      });
    }
    await file.close();
    await held.stop();
  },
);

t.test('direct writes to one image are under way side by side', async (t) => {
  const held = await HeldBacking.start(t, { workers: WORKERS });
  writeFileSync(held.daemon.at('image'), Buffer.alloc(MiB));
  const file = await open(held.daemon.at('image'), O_RDWR | O_DIRECT);
  await held.hold();
  const blocks = Array.from({ length: WORKERS }, (_, i) => alignedBytes(4 * KiB, 0).fill(i + 1));
  const written = blocks.map((block, i) => file.write(block, 0, block.length, i * 64 * KiB));
  const calls = await held.waiting('pwrite64', WORKERS);
  held.letGo();
  t.strictSame(
    calls.map(({ args }) => Number(args[3])).sort((a, b) => a - b),
    [0, 64 * KiB, 128 * KiB],
    'each in a thread of its own',
  );
  for (const each of written) t.equal((await each).bytesWritten, 4 * KiB);
  const contents = readFileSync(held.daemon.at('image'));
  t.strictSame(
    blocks.map((_, i) => contents[i * 64 * KiB]),
    blocks.map((block) => block[0]),
  );
  await file.close();
  await held.stop();
});

t.test('what a plain file takes or refuses, the mount takes or refuses', async (t) => {
  const daemon = await TestDaemon.start(t);
  const outcome = (act: () => number): number | string => {
    try {
      return act();
    } catch (error) {
      return (error as NodeJS.ErrnoException).code ?? String(error);
    }
  };
  const outcomes = (image: string): readonly (number | string)[] => {
    writeFileSync(image, Buffer.alloc(64 * KiB + 100));
    const fd = openSync(image, O_RDWR | O_DIRECT);
    const into = alignedBytes(4 * KiB, 0);
    const from = alignedBytes(4 * KiB, 0).fill(9);
    const found = [
      [512, 0],
      [512, 512],
      [1536, 1024],
      [100, 0],
      [4096, 100],
      [513, 4096],
      [4096, 64 * KiB],
      [4096, 72 * KiB],
    ].flatMap(([length, offset]) => [
      outcome(() => readSync(fd, into, 0, length!, offset!)),
      outcome(() => writeSync(fd, from, 0, length!, offset!)),
    ]);
    closeSync(fd);
    return [...found, createHash('sha256').update(readFileSync(image)).digest('hex')];
  };
  const wanted = outcomes(daemon.below('plain'));
  t.ok(wanted.includes('EINVAL') && wanted.includes(4096), 'the disk takes some and refuses some');
  t.strictSame(outcomes(daemon.at('image')), wanted);
  await daemon.stop();
});

t.test('sixteen threads write one image directly, and every block lands', async (t) => {
  const daemon = await TestDaemon.start(t, { workers: WORKERS });
  const jobs = {
    size: '2m',
    offset_increment: '2m',
    numjobs: 16,
    thread: true,
    rw: 'randwrite',
    bs: '4k',
    verify: 'crc32c',
    verify_fatal: 1,
  } as const;
  await runFioOk({
    ...jobs,
    filename: daemon.at('image'),
    direct: 1,
    ioengine: 'libaio',
    iodepth: 4,
    do_verify: 0,
  });
  const verified = await runFioOk({ ...jobs, filename: daemon.below('image'), verify_only: true });
  t.equal(
    verified.reduce((sum, job) => sum + job.read.io_bytes, 0),
    16 * 2 * MiB,
    'read back from the backing file',
  );
  await daemon.stop();
});
