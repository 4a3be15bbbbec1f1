import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { open, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Test } from 'tap';
import t from 'tap';
import { FileUser } from '../support/file-user.js';
import { runFioOk } from '../support/fio.js';
import { migrate, startPair } from '../support/pair.js';
import { scratchDir } from '../support/scratch.js';
import { StuckFile } from '../support/stuck-file.js';
import { TestDaemon, within } from '../support/test-daemon.js';
import { waitFor } from '../support/wait-for.js';

const WORKERS = 2;
/** Much longer than a worker needs to be replaced, much shorter than for ever. */
const SERVED_MAX_MS = 20_000;
const KiB = 1024;
/** More than the kernel has asynchronous requests under way unless told otherwise, or libfuse asks for. */
const PILE_REQUESTS = 300;

/** A daemon with an image that can be stuck and one that is healthy. */
const setUp = async (t: Test) => {
  const imageDir = scratchDir(t, 'stuck');
  const stuck = await StuckFile.start(t, join(imageDir, 'stuck'), 64 * KiB);
  writeFileSync(join(imageDir, 'healthy'), 'h'.repeat(64 * KiB));
  const mountpoint = join(scratchDir(t, 'mount'), 'mnt');
  mkdirSync(mountpoint);
  const daemon = await TestDaemon.start(t, { imageDir, mountpoint, workers: WORKERS });
  return { stuck, daemon };
};

const users = (t: Test, daemon: TestDaemon, count: number): Promise<FileUser[]> =>
  Promise.all(Array.from({ length: count }, () => FileUser.start(t, daemon.at('stuck'))));

const threads = (pid: number): number => readdirSync(`/proc/${pid}/task`).length;
const residentKiB = (pid: number): number =>
  Number(/^VmRSS:\s*(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]);

/** Everything but the stuck image: data through a handle, a new file, names, attributes. */
const useOthers = async (daemon: TestDaemon): Promise<void> => {
  const file = await open(daemon.at('healthy'), 'r+');
  try {
    await file.write('changed', 100);
    await file.sync();
    const { buffer } = await file.read(Buffer.alloc(7), 0, 7, 100);
    if (buffer.toString() !== 'changed') throw new Error('the healthy image has other bytes');
  } finally {
    await file.close();
  }
  await writeFile(daemon.at('new'), 'new');
  if ((await readFile(daemon.at('new'), 'utf8')) !== 'new') throw new Error('the new file has other bytes');
  if ((await stat(daemon.at('new'))).size !== 3) throw new Error('the new file has another size');
};

t.test('a stuck image stops nothing else, and goes on where it was', async (t) => {
  const { stuck, daemon } = await setUp(t);
  await useOthers(daemon);
  const crowd = await users(t, daemon, 6 * WORKERS);
  const before = threads(daemon.pid);
  await stuck.hold();
  const answers = crowd.map((user, i) =>
    i % 2 === 0 ? user.read(i * KiB, 8) : user.write(i * KiB, `written${i.toString(36)}`),
  );
  await stuck.held(1);
  for (let round = 0; round < 3; round++)
    await t.resolves(
      within(useOthers(daemon), SERVED_MAX_MS, () => 'the other images are not served'),
      'reads, writes, syncs, creation and attributes of others go on',
    );
  t.ok(threads(daemon.pid) - before < 4 * WORKERS, 'what waits takes no thread each');
  await stuck.release();
  const expected = crowd.map((_, i) => (i % 2 === 0 ? '........' : '8'));
  t.same(await within(Promise.all(answers), SERVED_MAX_MS, () => 'not answered'), expected);
  const [reader] = crowd;
  for (let i = 1; i < crowd.length; i += 2)
    t.equal(await reader!.read(i * KiB, 8), `written${i.toString(36)}`);
  await waitFor(() => threads(daemon.pid) <= before, 'the threads are as many as they were');
  t.ok(
    daemon.log.some((line) => /does not answer/.test(line)),
    'the log says so',
  );
});

t.test(
  'G2: another image is tracked, routed and cut over while a write to the stuck one is under way',
  async (t) => {
    const imageDir = scratchDir(t, 'stuck');
    const stuck = await StuckFile.start(t, join(imageDir, 'stuck'), 64 * KiB);
    writeFileSync(join(imageDir, 'healthy'), 'h'.repeat(64 * KiB));
    const mountpoint = scratchDir(t, 'mount');
    const pair = await startPair(t, { source: { imageDir, mountpoint, workers: WORKERS } });
    const { daemon } = pair.source;
    const [writer] = await users(t, daemon, 1);
    await stuck.hold();
    const written = writer!.write(0, 'late');
    await stuck.held(1);
    const migration = await migrate(t, pair, ['healthy'], { cutover: 'when-in-sync' });
    await migration.reaches('completed');
    t.equal(readFileSync(pair.target.daemon.below('healthy'), 'utf8'), 'h'.repeat(64 * KiB));
    await stuck.release();
    t.equal(await written, '4');
    t.equal(await writer!.read(0, 4), 'late');
  },
);

t.test('asynchronous requests that pile up on a stuck image leave the others theirs', async (t) => {
  const { stuck, daemon } = await setUp(t);
  // Writing, because reading alone would go past the daemon.
  const job = {
    rw: 'randwrite',
    bs: '4k',
    size: 64 * KiB,
    ioengine: 'libaio',
    direct: 1,
    norandommap: true,
    fallocate: 'none',
  } as const;
  await stuck.hold();
  const noticed = daemon.logged((line) => /does not answer/.test(line));
  const piling = runFioOk({
    ...job,
    filename: daemon.at('stuck'),
    iodepth: PILE_REQUESTS,
    io_size: PILE_REQUESTS * 4 * KiB,
  });
  await within(noticed, SERVED_MAX_MS, () => 'it is not noticed');
  const other = runFioOk({
    ...job,
    filename: daemon.at('healthy'),
    iodepth: 8,
    io_size: 100 * 4 * KiB,
  });
  t.ok(await within(other, SERVED_MAX_MS, () => 'the other image is not served'), 'they go on');
  await stuck.release();
  t.ok(await within(piling, SERVED_MAX_MS, () => 'what piled up is not answered'), 'and these end');
});

t.test('a process that is killed in a request of a stuck image ends', async (t) => {
  const { stuck, daemon } = await setUp(t);
  const crowd = await users(t, daemon, 3 * WORKERS);
  await stuck.hold();
  for (const [i, user] of crowd.entries()) void (i === 1 ? user.sync() : user.read(i * KiB, 8));
  await stuck.held(1);
  await within(useOthers(daemon), SERVED_MAX_MS, () => 'the other images are not served');
  for (const user of crowd) user.kill('SIGKILL');
  t.same(
    await within(Promise.all(crowd.map(({ ended }) => ended)), SERVED_MAX_MS, () => 'they do not end'),
    crowd.map(() => 'SIGKILL'),
  );
  await stuck.release();
  const [user] = await users(t, daemon, 1);
  t.equal(await user!.write(0, 'again'), '5');
  t.equal(await user!.read(0, 5), 'again');
});

t.test('G1: a write that was begun is not given up when its process is killed', async (t) => {
  const { stuck, daemon } = await setUp(t);
  const [writer, witness] = await users(t, daemon, 2);
  await stuck.hold();
  void writer!.write(0, 'begun');
  await stuck.held(1);
  writer!.kill('SIGKILL');
  await within(useOthers(daemon), SERVED_MAX_MS, () => 'the other images are not served');
  t.match(readFileSync(`/proc/${writer!.pid}/stat`, 'utf8'), /\) [DSR] /, 'it still waits for its write');
  await stuck.release();
  t.equal(await writer!.ended, 'SIGKILL');
  t.equal(await witness!.read(0, 5), 'begun');
});

t.test('a signal that does not kill ends a request after some seconds', async (t) => {
  const { stuck, daemon } = await setUp(t);
  const [reader] = await users(t, daemon, 1);
  await stuck.hold();
  const answer = reader!.read(0, 5);
  await stuck.held(1);
  reader!.kill('SIGUSR2');
  t.equal(await within(answer, SERVED_MAX_MS, () => 'not interrupted'), 'EINTR');
  await stuck.release();
  t.equal(await reader!.read(0, 5), '.....');
});

t.test('memory returns to what it was', async (t) => {
  const { stuck, daemon } = await setUp(t);
  const crowd = await users(t, daemon, 3 * WORKERS);
  await useOthers(daemon);
  for (let round = 0; round < 3; round++) {
    const before = residentKiB(daemon.pid);
    await stuck.hold();
    const answers = crowd.map((user, i) => user.read(i * KiB, 8));
    await stuck.held(WORKERS);
    await stuck.release();
    await Promise.all(answers);
    if (round === 2) t.ok(residentKiB(daemon.pid) - before < 64 * KiB, 'less than 64 MiB more');
  }
  t.equal(statSync(daemon.at('healthy')).size, 64 * KiB);
});

t.test('the daemon ends although a call has not returned', async (t) => {
  const { stuck, daemon } = await setUp(t);
  const [reader] = await users(t, daemon, 1);
  await stuck.hold();
  void reader!.read(0, 8);
  await stuck.held(1);
  await within(useOthers(daemon), SERVED_MAX_MS, () => 'the other images are not served');
  reader!.kill('SIGKILL');
  await within(reader!.ended, SERVED_MAX_MS, () => 'the reader does not end');
  await daemon.stop();
  t.notOk(daemon.mounted);
});
