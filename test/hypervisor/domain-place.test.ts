import t from 'tap';
import { placeOf, type Sight } from '../../src/broker/hypervisor/domain-place.js';
import { MigrateFsError } from '../../src/leaves/errors.js';

const uuid = 'c963885b-acad-4f93-91d3-618868dc1ab4';
const UNREACHABLE: Sight = { kind: 'unreachable', error: new MigrateFsError('UNAVAILABLE', 'gone') };

/** `running (booted)`, `absent`, `unreachable`. */
const sight = (text: string): Sight => {
  if (text === 'unreachable') return UNREACHABLE;
  if (text === 'absent') return { kind: 'absent' };
  const [, activity, reason] = /^(\w+) \((.*)\)$/.exec(text)!;
  return { kind: 'present', uuid, activity: activity as 'running' | 'paused' | 'inactive', reason: reason! };
};

const ALL = [
  ...['absent', 'unreachable', 'inactive (destroyed)', 'running (booted)', 'running (migrated)'],
  ...['paused (user)', 'paused (migrating)', 'paused (starting up)'],
];

t.test('each moment of a migration, as it was seen at two libvirts 9.0', async (t) => {
  const seen: [string, string, string, boolean][] = [
    ['running (booted)', 'absent', 'source', true],
    ['running (booted)', 'paused (starting up)', 'source', false],
    ['running (booted)', 'inactive (destroyed)', 'source', true],
    ['paused (migrating)', 'running (migrated)', 'target', false],
    ['paused (migrating)', 'paused (starting up)', 'unknown', false],
    ['absent', 'running (migrated)', 'target', true],
    ['inactive (migrated)', 'running (migrated)', 'target', true],
    ['inactive (migrated)', 'paused (user)', 'target', true],
    ['absent', 'paused (starting up)', 'unknown', false],
    ['absent', 'absent', 'nowhere', false],
    ['paused (user)', 'absent', 'source', true],
    ['running (booted)', 'unreachable', 'source', true],
    ['paused (user)', 'unreachable', 'source', true],
    ['paused (migrating)', 'unreachable', 'unknown', true],
    ['absent', 'unreachable', 'unknown', true],
    ['unreachable', 'running (migrated)', 'target', true],
    ['unreachable', 'paused (starting up)', 'unknown', true],
    ['unreachable', 'absent', 'unknown', true],
  ];
  for (const [source, target, kind, settled] of seen)
    t.match(placeOf(sight(source), sight(target)), { kind, settled }, `${source} | ${target}`);
});

t.test('G3: a VM is only said to be where its domain is active, and never while both run', async (t) => {
  for (const source of ALL)
    for (const target of ALL) {
      const { kind, leftover } = placeOf(sight(source), sight(target));
      const active = /running|paused/;
      if (kind === 'source') t.match(source, active, `${source} | ${target}`);
      if (kind === 'target') t.match(target, active, `${source} | ${target}`);
      if (/running/.test(source) && /running/.test(target)) t.equal(kind, 'unknown');
      if (leftover) t.match(target, /paused/, 'only what never ran may be discarded');
    }
});
