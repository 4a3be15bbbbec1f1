import fc from 'fast-check';
import t from 'tap';
import { checkTopology, HOSTS_MAX, parseTopology } from '../../../src/broker/policy/topology.js';

const host = (name: string) => ({ name, control: `${name}:7070`, data: `${name}:7071` });
const link = (name: string, from: string, to: string, capacity = '10Gbit/s') => ({
  name,
  between: [from, to],
  capacity,
});

/** Two hosts, two switches between which there are two links, and a longer way round. */
const DOCUMENT = {
  hosts: [host('a'), host('b'), host('c')],
  switches: ['s1', 's2', 's3'],
  links: [
    link('a-up', 'a', 's1'),
    link('b-up', 's2', 'b', '1GB/s'),
    link('trunk-2', 's1', 's2'),
    link('trunk-1', 's2', 's1'),
    link('round-1', 's1', 's3'),
    link('round-2', 's3', 's2'),
    link('c-up', 'c', 's3'),
  ],
  routes: [{ source: 'b', target: 'a', links: ['b-up', 'round-2', 'round-1', 'a-up'] }],
};

const names = (path: readonly { readonly name: string; readonly backward?: boolean }[]): string =>
  path.map(({ name, backward }) => `${name}${backward ? ' backwards' : ''}`).join(', ');

t.test('a path is the fewest links; of parallel ones the lower name; each with its direction', async (t) => {
  const topology = checkTopology(DOCUMENT);
  t.equal(names(topology.path('a', 'b')), 'a-up, trunk-1 backwards, b-up');
  t.equal(names(topology.path('a', 'c')), 'a-up, round-1, c-up backwards');
  t.equal(topology.path('a', 'b')[2]?.capacity, 1_000_000_000);
  t.equal(topology.path('a', 'b')[0]?.capacity, 1_250_000_000);
  t.equal(topology.path('a', 'b'), topology.path('a', 'b'), 'remembered');
});

t.test('a static route goes before the shortest path, in its direction only', async (t) => {
  const topology = checkTopology(DOCUMENT);
  t.equal(
    names(topology.path('b', 'a')),
    'b-up backwards, round-2 backwards, round-1 backwards, a-up backwards',
  );
  t.equal(names(topology.path('a', 'b')), 'a-up, trunk-1 backwards, b-up');
});

t.test('of paths of one length, the first link that differs decides', async (t) => {
  const topology = checkTopology({
    hosts: [host('a'), host('b')],
    switches: ['x', 'y'],
    links: [
      // By x it would end with the lowest name, by y it begins with the lower one.
      link('m2', 'a', 'x'),
      link('m1', 'a', 'y'),
      link('a0', 'x', 'b'),
      link('z9', 'y', 'b'),
    ],
  });
  t.equal(names(topology.path('a', 'b')), 'm1, z9');
});

t.test('hosts do not forward', async (t) => {
  const topology = checkTopology({
    hosts: [host('a'), host('b'), host('c')],
    links: [link('ab', 'a', 'b'), link('bc', 'b', 'c')],
  });
  t.equal(names(topology.path('a', 'b')), 'ab');
  t.throws(() => topology.path('a', 'c'), {
    code: 'FAILED_PRECONDITION',
    message: /no route from 'a' to 'c'/,
  });
});

t.test('unknown hosts and a target that is the source have their own answers', async (t) => {
  const topology = checkTopology(DOCUMENT);
  t.throws(() => topology.path('a', 'nobody'), { code: 'NOT_FOUND', message: /no host 'nobody'/ });
  t.throws(() => topology.path('s1', 'a'), { code: 'NOT_FOUND', message: /no host 's1'/ });
  t.throws(() => topology.path('a', 'a'), { code: 'INVALID_ARGUMENT', message: /same host/ });
  t.strictSame(topology.host('b'), host('b'));
});

const WRONG: readonly [string, (document: Record<string, unknown[]>) => unknown, RegExp][] = [
  ['no object', () => [], /document: give an object/],
  ['no hosts', ({ links }) => ({ links }), /hosts: give a list/],
  ['a misspelt field', (all) => ({ ...all, swiches: [] }), /document: unknown field 'swiches'/],
  ['a bad name', (all) => ({ ...all, hosts: [host('a b')] }), /hosts\[0\]\.name: give a name/],
  [
    'a host twice',
    (all) => ({ ...all, hosts: [host('a'), host('a')] }),
    /hosts\[1\]\.name: 'a' is already hosts\[0\]/,
  ],
  [
    'a switch like a host',
    (all) => ({ ...all, switches: ['a'] }),
    /switches\[0\]: 'a' is already hosts\[0\]/,
  ],
  [
    'an address without a port',
    (all) => ({ ...all, hosts: [{ ...host('a'), data: 'a' }] }),
    /hosts\[0\]\.data: not an address: 'a'/,
  ],
  [
    'an address with port 0',
    (all) => ({ ...all, hosts: [{ ...host('a'), control: 'a:0' }] }),
    /hosts\[0\]\.control: port 0/,
  ],
  [
    'an unclear capacity',
    (all) => ({ ...all, links: [link('x', 'a', 's1', '10Gb')] }),
    /links\[0\]\.capacity: not a capacity: '10Gb'/,
  ],
  [
    'a link to nowhere',
    (all) => ({ ...all, links: [link('x', 'a', 'nowhere')] }),
    /links\[0\]\.between\[1\]: no host or switch 'nowhere'/,
  ],
  [
    'a link to itself',
    (all) => ({ ...all, links: [link('x', 'a', 'a')] }),
    /links\[0\]\.between: give two different ends/,
  ],
  [
    'a link with three ends',
    (all) => ({ ...all, links: [{ ...link('x', 'a', 'b'), between: ['a', 'b', 'c'] }] }),
    /links\[0\]\.between: 3 entries; at most 2/,
  ],
  [
    'a link twice',
    (all) => ({ ...all, links: [...all['links']!, link('a-up', 'b', 's1')] }),
    /links\[7\]\.name: there is a link 'a-up' already/,
  ],
  [
    'a route over an unknown link',
    (all) => ({ ...all, routes: [{ source: 'a', target: 'b', links: ['a-up', 'x'] }] }),
    /routes\[0\]\.links\[1\]: no link 'x'/,
  ],
  [
    'a route with a gap',
    (all) => ({ ...all, routes: [{ source: 'a', target: 'b', links: ['a-up', 'b-up'] }] }),
    /routes\[0\]\.links\[1\]: link 'b-up' does not start at 's1'/,
  ],
  [
    'a route that stops early',
    (all) => ({ ...all, routes: [{ source: 'a', target: 'b', links: ['a-up'] }] }),
    /routes\[0\]: ends at 's1', not at 'b'/,
  ],
  [
    'a route in a circle',
    (all) => ({ ...all, routes: [{ source: 'a', target: 'b', links: ['a-up', 'trunk-1', 'trunk-2'] }] }),
    /routes\[0\]\.links\[2\]: comes back to 's1'/,
  ],
  [
    'a route through a host',
    (all) => ({ ...all, routes: [{ source: 'a', target: 'b', links: ['a-up', 'round-1', 'c-up'] }] }),
    /routes\[0\]\.links\[2\]: passes through host 'c'/,
  ],
  [
    'a route to a switch',
    (all) => ({ ...all, routes: [{ source: 'a', target: 's1', links: ['a-up'] }] }),
    /routes\[0\]\.target: no host 's1'/,
  ],
  [
    'a route twice',
    (all) => ({ ...all, routes: [...all['routes']!, ...all['routes']!] }),
    /routes\[1\]: there is a route from 'b' to 'a' already, routes\[0\]/,
  ],
  [
    'too many hosts',
    (all) => ({ ...all, hosts: Array.from({ length: HOSTS_MAX + 1 }, () => null) }),
    /hosts: 10001 entries; at most 10000/,
  ],
];

t.test('what is wrong is refused with its place', async (t) => {
  for (const [what, change, message] of WRONG)
    t.throws(
      () => checkTopology(change(structuredClone(DOCUMENT))),
      { code: 'INVALID_ARGUMENT', message },
      what,
    );
  t.throws(() => parseTopology('{'), { code: 'INVALID_ARGUMENT', message: /not JSON/ });
  t.equal(parseTopology(JSON.stringify(DOCUMENT)).hosts.length, 3);
});

t.test('any document is a topology or INVALID_ARGUMENT, nothing else', async (t) => {
  let refused = 0;
  fc.assert(
    fc.property(
      fc.record({
        hosts: fc.oneof(fc.jsonValue(), fc.constant(DOCUMENT.hosts)),
        links: fc.oneof(fc.jsonValue(), fc.array(fc.jsonValue()), fc.constant(DOCUMENT.links)),
        switches: fc.oneof(fc.jsonValue(), fc.constant(DOCUMENT.switches)),
        routes: fc.oneof(fc.jsonValue(), fc.constant(DOCUMENT.routes)),
      }),
      (document) => {
        try {
          checkTopology(document);
        } catch (error) {
          refused++;
          return (error as { code?: string }).code === 'INVALID_ARGUMENT';
        }
        return true;
      },
    ),
  );
  t.ok(refused > 0);
});

/** All simple paths by brute force, the best by length and then by names. */
const bestPath = (links: readonly [string, string, string][], hosts: readonly string[], to: string) => {
  let best: string[] | undefined;
  const walk = (node: string, path: string[], seen: readonly string[]): void => {
    if (node === to) {
      const isBetter = !best || path.length < best.length || (path.length === best.length && path < best);
      if (isBetter) best = path;
      return;
    }
    if (path.length > 0 && hosts.includes(node)) return;
    for (const [name, one, other] of links) {
      const next = node === one ? other : node === other ? one : undefined;
      if (next !== undefined && !seen.includes(next)) walk(next, [...path, name], [...seen, next]);
    }
  };
  walk('a', [], ['a']);
  return best;
};

t.test('the path is that of a search of all paths, whatever the order of the document', async (t) => {
  const nodes = ['a', 'b', 'h', 's1', 's2', 's3', 's4'];
  let found = 0;
  fc.assert(
    fc.property(
      fc
        .uniqueArray(fc.integer({ min: 10, max: 99 }), { minLength: 3, maxLength: 10 })
        .chain((numbers) =>
          fc.tuple(
            ...numbers.map((number) =>
              fc.tuple(fc.constant(`l${number}`), fc.shuffledSubarray(nodes, { minLength: 2, maxLength: 2 })),
            ),
          ),
        ),
      (wires) => {
        const topology = checkTopology({
          hosts: ['a', 'b', 'h'].map(host),
          switches: ['s1', 's2', 's3', 's4'],
          links: wires.map(([name, [one, other]]) => link(name, one!, other!)),
        });
        const expected = bestPath(
          wires.map(([name, [one, other]]) => [name, one!, other!]),
          ['a', 'b', 'h'],
          'b',
        );
        try {
          const path = topology.path('a', 'b').map(({ name }) => name);
          found++;
          return path.join() === expected?.join();
        } catch (error) {
          return expected === undefined && (error as { code?: string }).code === 'FAILED_PRECONDITION';
        }
      },
    ),
    { numRuns: 500 },
  );
  t.ok(found > 50, `${found} paths were found`);
});
