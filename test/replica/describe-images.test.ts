import { mkdirSync, symlinkSync } from 'node:fs';
import t from 'tap';
import { MiB } from '../../src/leaves/units.js';
import { makeSparseImage } from '../support/files.js';
import { scratchDir } from '../support/scratch.js';
import { TestHost } from './source-world.js';

t.test('images before, during and after a migration, on both sides', async (t) => {
  const source = await TestHost.open(t, scratchDir(t, 'source'));
  const target = await TestHost.open(t, scratchDir(t, 'target'));
  makeSparseImage(source.path('a.img'), 8 * MiB, [{ offset: 0, length: MiB }]);
  const one = async (host: TestHost) => (await host.replica.describeImages(['a.img']))[0];

  t.same(await one(source), {
    name: 'a.img',
    size: 8 * MiB,
    allocated: source.allocated('a.img'),
    role: 'owner',
    generation: 0,
  });
  t.match(await one(target), { name: 'a.img', error: { code: 'NOT_FOUND' } });

  const to = target.replica.dataAddress;
  const { id } = await source.start(['a.img'], to, {});
  await source.untilState(id, 'mirroring');
  t.match(await one(source), { role: 'owner', generation: 0, migrationId: id });
  t.match(await one(target), {
    size: 8 * MiB,
    role: 'replica',
    peer: source.replica.dataAddress,
    migrationId: id,
  });

  await source.replica.cutover(id);
  await target.untilState(id, 'completed');
  const fenced = await one(source);
  t.match(fenced, { role: 'fenced', generation: 1, peer: to });
  t.notOk('migrationId' in fenced!);
  const owner = await one(target);
  t.match(owner, { role: 'owner', generation: 1, allocated: target.allocated('a.img') });
  t.notOk('migrationId' in owner! || 'peer' in owner!);
});

t.test('what cannot be used as an image is an answer, in its place', async (t) => {
  const dir = scratchDir(t, 'source');
  const host = await TestHost.open(t, dir);
  makeSparseImage(host.path('a.img'), MiB);
  symlinkSync('/etc', `${dir}/out`);
  mkdirSync(`${dir}/folder`);
  const found = await host.replica.describeImages(['none.img', 'out/passwd', 'folder', '../x', 'a.img']);
  t.same(
    found.map((image) => ('error' in image ? image.error.code : image.size)),
    ['NOT_FOUND', 'INVALID_ARGUMENT', 'INVALID_ARGUMENT', 'INVALID_ARGUMENT', MiB],
  );
});
