/** A process with asynchronous writes under way, which the kernel makes wait for them when it ends. */
import t from 'tap';
import { MiB } from '../../src/leaves/units.js';
import { identical } from '../support/cutover.js';
import { makeSparseImage } from '../support/files.js';
import { runFio } from '../support/fio.js';
import { descriptorFlags } from '../support/held-backing.js';
import { migrate, startPair } from '../support/pair.js';
import { waitFor } from '../support/wait-for.js';

for (const [limit, settings] of [
  ['the disk limit', { netLimit: 64 * 1024, diskLimit: 4000 }],
  ['the network limit, in sync', {}],
] as const)
  t.test(`a killed process with asynchronous writes does not wait for ${limit}`, async (t) => {
    const pair = await startPair(t);
    const { daemon, client } = pair.source;
    makeSparseImage(daemon.below('vm.raw'), 64 * MiB, [{ offset: 0, length: 8 * MiB }]);
    const migration = await migrate(t, pair, ['vm.raw'], { cutover: 'explicit', ...settings });
    if (!('diskLimit' in settings)) {
      await migration.reaches('mirroring');
      await client.setNetworkLimit(migration.id, 4000 as never);
    }
    const kill = new AbortController();
    t.teardown(() => kill.abort());
    const load = runFio(
      {
        filename: daemon.at('vm.raw'),
        rw: 'randwrite',
        bs: '64k',
        size: 64 * MiB,
        ioengine: 'libaio',
        iodepth: 32,
        direct: 1,
        time_based: true,
        runtime: 600,
        fallocate: 'none',
        thread: true,
      },
      kill.signal,
    ).catch((error: Error) => error);
    // The first takes what the token bucket holds at the start.
    await migration.until(({ writeRate }) => writeRate > 0);
    t.ok(descriptorFlags(daemon.pid, 'vm.raw').length > 1, 'the image is open');
    kill.abort();
    await load;
    await waitFor(
      () => descriptorFlags(daemon.pid, 'vm.raw').length === 1,
      'the process ends and closes the image',
    );
    t.equal((await client.get(migration.id)).error, undefined);
    if (!('diskLimit' in settings)) {
      await client.cutover(migration.id);
      await migration.reaches('completed');
      t.notOk(migration.states.slice(migration.states.indexOf('mirroring')).includes('dirty-resend'));
      t.ok(await identical(daemon.below('vm.raw'), pair.target.daemon.below('vm.raw')), 'G2');
      return;
    }
    await client.cancel(migration.id);
    await migration.reaches('cancelled');
  });
