/** Limits, pause and resume through the command line, on a running migration. */
import t from 'tap';
import type { MigrationSnapshot } from '../../src/leaves/migration.js';
import { MiB } from '../../src/leaves/units.js';
import { makeSparseImage } from '../support/files.js';
import { runFioOk } from '../support/fio.js';
import { type Followed, migrate, type Pair, startPair } from '../support/pair.js';
import type { Teardown } from '../support/scratch.js';

const IMAGE = 'vm.raw';

const started = async (
  t: Teardown,
  netLimit: number,
): Promise<{ pair: Pair; migration: Followed; began: number }> => {
  const pair = await startPair(t);
  makeSparseImage(pair.source.daemon.below(IMAGE), 96 * MiB, [{ offset: 0, length: 64 * MiB }]);
  const began = performance.now();
  return { pair, migration: await migrate(t, pair, [IMAGE], { netLimit, cutover: 'explicit' }), began };
};

t.test('the network limit holds and can be lifted', async (t) => {
  const limit = 4 * MiB;
  const { pair, migration, began } = await started(t, limit);
  const { bytesSent } = await migration.until((s) => s.bytesSent > 5 * MiB);
  // A report that comes late only makes it lower.
  const rate = (bytesSent * 1000) / (performance.now() - began);
  t.ok(rate < limit * 1.6, `${rate} bytes per second under a limit of 4 MiB/s`);
  const before = performance.now();
  const { bytesLeft } = await pair.source.client.get(migration.id);
  const limited = await pair.source.daemon.cli(['limit', migration.id, '--net', 'unlimited']);
  t.equal(limited.code, 0, limited.stderr);
  await migration.reaches('mirroring');
  const seconds = (performance.now() - before) / 1000;
  t.ok(
    seconds < bytesLeft / limit,
    `${bytesLeft} bytes in ${seconds} s: faster than 4 MiB/s could carry them`,
  );
});

t.test('the disk limit slows the guest, not its neighbour, and can be lifted', async (t) => {
  const { pair, migration } = await started(t, 8 * MiB);
  const write = async (name: string, offset: number): Promise<number> => {
    const [job] = await runFioOk({
      filename: pair.source.daemon.at(name),
      rw: 'write',
      bs: '64k',
      offset,
      size: 2 * MiB,
      fallocate: 'none',
    });
    return job!.write.bw_bytes;
  };
  makeSparseImage(pair.source.daemon.below('other.raw'), 8 * MiB);
  const limited = await pair.source.daemon.cli(['limit', migration.id, '--disk', '512KiB/s']);
  t.equal(limited.code, 0, limited.stderr);
  const [slow, neighbour] = await Promise.all([write(IMAGE, 70 * MiB), write('other.raw', 0)]);
  t.ok(slow < 1.25 * MiB, `${slow} bytes per second under a limit of 512 KiB/s`);
  t.ok(neighbour > 4 * slow, `the neighbour writes ${neighbour} bytes per second`);
  await pair.source.daemon.cli(['limit', migration.id, '--disk', '0']);
  const free = await write(IMAGE, 70 * MiB);
  t.ok(free > 4 * slow, `${free} bytes per second without a limit`);
});

t.test('a paused migration sends nothing, and goes on when resumed', async (t) => {
  const { pair, migration } = await started(t, 16 * MiB);
  const { daemon } = pair.source;
  await migration.until((s) => s.bytesSent > 2 * MiB);
  const paused = await daemon.cli(['pause', migration.id]);
  t.equal(paused.code, 0, paused.stderr);
  const status = async (): Promise<MigrationSnapshot> =>
    JSON.parse((await daemon.cli(['status', migration.id, '--json'])).stdout) as MigrationSnapshot;
  const before = await status();
  t.equal(before.state, 'paused');
  await runFioOk({ filename: daemon.at(IMAGE), rw: 'randwrite', bs: '4k', size: 4 * MiB, fallocate: 'none' });
  t.equal((await status()).bytesSent, before.bytesSent, 'nothing is sent');
  const resumed = await daemon.cli(['resume', migration.id]);
  t.equal(resumed.code, 0, resumed.stderr);
  t.notMatch(resumed.stdout, /paused/, 'it says what it goes on with');
  await migration.reaches('mirroring');
  const cutover = await daemon.cli(['cutover', migration.id]);
  t.equal(cutover.code, 0, cutover.stderr);
  t.equal((await status()).state, 'completed');
});
