/** The end of the second phase does not depend on the guest writing slower than the network carries. */
import t from 'tap';
import { MiB } from '../../src/leaves/units.js';
import { identical } from '../support/cutover.js';
import { makeSparseImage } from '../support/files.js';
import { runFio } from '../support/fio.js';
import { migrate, startPair } from '../support/pair.js';

const IMAGE = 'vm.raw';
const NET_LIMIT = 8 * MiB;

t.test('a load that outruns a throttled network still gets in sync', async (t) => {
  const pair = await startPair(t);
  const { source, target } = pair;
  makeSparseImage(source.daemon.below(IMAGE), 32 * MiB, [{ offset: 0, length: 32 * MiB }]);
  const stop = new AbortController();
  t.teardown(() => stop.abort());
  // Unlimited it writes hundreds of MB/s.
  const load = runFio(
    {
      filename: source.daemon.at(IMAGE),
      rw: 'randwrite',
      bs: '64k',
      size: 32 * MiB,
      numjobs: 2,
      time_based: true,
      runtime: 120,
      fallocate: 'none',
      thread: true,
      group_reporting: true,
    },
    stop.signal,
  ).catch((error: Error) => error);
  const migration = await migrate(t, pair, [IMAGE], { cutover: 'explicit', netLimit: NET_LIMIT });
  const began = performance.now();
  const inSync = await migration.reaches('mirroring', 100_000);
  const seconds = (performance.now() - began) / 1000;
  t.ok(inSync.bytesSent > 32 * MiB, 'there was more to send than the image');
  t.ok(
    inSync.bytesSent / seconds < NET_LIMIT * 1.5,
    `the limit held: ${inSync.bytesSent} bytes in ${seconds} s`,
  );
  stop.abort();
  await load;
  await source.client.cutover(migration.id);
  await migration.reaches('completed');
  t.ok(await identical(source.daemon.below(IMAGE), target.daemon.below(IMAGE)));
});
