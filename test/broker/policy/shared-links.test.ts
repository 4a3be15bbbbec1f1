import t from 'tap';
import { SHARERS_MAX, sharedLinks } from '../../../src/broker/policy/shared-links.js';
import { star, twoRacks } from '../../support/planned-tasks.js';

const running = (migrationId: string, source: string, target: string) => ({
  migrationId,
  source,
  target,
  server: `${source}:7070`,
});

t.test('migrations share the links that they use in the same direction', async (t) => {
  const links = sharedLinks(
    [running('m1', 'a', 'c'), running('m2', 'b', 'c'), running('m3', 'c', 'a'), running('m4', 'a', 'b')],
    twoRacks('1GB/s', '2GB/s'),
  );
  t.strictSame(links.get('m1'), [
    { link: 'a', capacity: 1e9, sharers: [{ server: 'a:7070', migrationId: 'm4' }] },
    { link: 'middle', capacity: 2e9, sharers: [{ server: 'b:7070', migrationId: 'm2' }] },
    { link: 'c', capacity: 1e9, sharers: [{ server: 'b:7070', migrationId: 'm2' }] },
  ]);
  t.strictSame(
    links.get('m3')?.map(({ link, sharers }) => [link, sharers.length]),
    [
      ['c', 0],
      ['middle', 0],
      ['a', 0],
    ],
    'the other direction is a resource of its own',
  );
});

t.test('a broker is told a bounded number of sharers, and each is told to somebody', async (t) => {
  const count = SHARERS_MAX * 2;
  const all = Array.from({ length: count }, (_, i) => running(`m${i}`, 'a', 'b'));
  const links = sharedLinks(all, star(['a', 'b']));
  const told = new Map<string, number>();
  const lengths = new Set<number>();
  for (const [id, path] of links)
    for (const { sharers } of path) {
      lengths.add(sharers.length);
      for (const { migrationId } of sharers) {
        if (migrationId === id) t.fail(`${id} is told of itself`);
        told.set(migrationId, (told.get(migrationId) ?? 0) + 1);
      }
    }
  t.strictSame([...lengths], [SHARERS_MAX]);
  t.equal(told.size, count);
  t.strictSame([...new Set(told.values())], [SHARERS_MAX * 2], 'each as often, on both links');
});

t.test('a migration that the topology has no route for any more shares nothing', async (t) => {
  const links = sharedLinks([running('m1', 'a', 'gone'), running('m2', 'a', 'b')], star(['a', 'b']));
  t.strictSame(links.get('m1'), []);
  t.strictSame(
    links.get('m2')?.map(({ sharers }) => sharers.length),
    [0, 0],
  );
});
