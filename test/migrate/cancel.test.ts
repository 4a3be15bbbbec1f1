/** Cancelling at any moment leaves the source as it was and nothing on the target (G4). */
import { mkdirSync } from 'node:fs';
import t from 'tap';
import { MiB } from '../../src/leaves/units.js';
import { filesOf, recordOf, unlinkRefusal } from '../support/debris.js';
import { makeSparseImage } from '../support/files.js';
import { type Followed, migrate, startPair } from '../support/pair.js';
import { StampWriter } from '../support/stamp-writer.js';
import { waitFor } from '../support/wait-for.js';

const IMAGE = 'sub/dir/vm.raw';

/** The states in which a migration is cancelled here, and what brings it there. */
const MOMENTS: Readonly<
  Record<string, { readonly netLimit?: number; readonly bring: (migration: Followed) => Promise<unknown> }>
> = {
  'bulk copy': { netLimit: 8 * MiB, bring: (migration) => migration.until((s) => s.bytesSent > 2 * MiB) },
  'dirty resend or mirroring': {
    netLimit: 24 * MiB,
    bring: (migration) => migration.until((s) => s.state === 'dirty-resend' || s.state === 'mirroring'),
  },
  mirroring: { bring: (migration) => migration.reaches('mirroring') },
};

for (const [moment, { netLimit, bring }] of Object.entries(MOMENTS))
  t.test(`cancelled in ${moment}`, async (t) => {
    const pair = await startPair(t);
    const { source, target } = pair;
    mkdirSync(source.daemon.below('sub/dir'), { recursive: true });
    makeSparseImage(source.daemon.below(IMAGE), 64 * MiB, [{ offset: 8 * MiB, length: 32 * MiB }]);
    const writer = new StampWriter({ offset: 0, length: 4 * MiB }, 3);
    await writer.start(source.daemon.at(IMAGE), 2);
    const migration = await migrate(t, pair, [IMAGE], netLimit === undefined ? {} : { netLimit });
    await bring(migration);
    const during = writer.writes;
    const snapshot = await source.client.cancel(migration.id);
    t.equal(snapshot.state, 'cancelled');
    t.equal((await source.client.cancel(migration.id)).state, 'cancelled', 'cancelling again is no error');
    await waitFor(() => filesOf(target.daemon).length === 0, 'nothing is left on the target');
    await waitFor(() => writer.writes > during, 'the writer goes on');
    await writer.stop();
    t.equal(writer.refusal, null, 'the guest saw no error');
    t.same((await writer.check(source.daemon.below(IMAGE))).lost, [], 'the source has every write');
    t.equal(await recordOf(source.daemon.below(IMAGE)), '', 'no ownership record stays on the source');
    const again = await migrate(t, pair, [IMAGE]);
    await again.reaches('mirroring');
    await source.client.cancel(again.id);
    await waitFor(() => filesOf(target.daemon).length === 0, 'a second migration can be cancelled as well');
    t.equal(unlinkRefusal(source.daemon.at(IMAGE)), '', 'the image is no longer pinned');
    await source.daemon.stop();
    await target.daemon.stop();
  });

t.test('cancelled at the target', async (t) => {
  const pair = await startPair(t);
  const { source, target } = pair;
  makeSparseImage(source.daemon.below('vm.raw'), 32 * MiB, [{ offset: 0, length: 32 * MiB }]);
  const migration = await migrate(t, pair, ['vm.raw'], { netLimit: 8 * MiB });
  await migration.until((s) => s.bytesSent > MiB);
  await target.client.cancel(migration.id);
  await migration.until((s) => s.state === 'cancelled' || s.state === 'failed');
  await waitFor(() => filesOf(target.daemon).length === 0, 'nothing is left on the target');
  t.equal(unlinkRefusal(source.daemon.at('vm.raw')), '', 'the source is free');
});
