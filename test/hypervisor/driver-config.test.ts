import t from 'tap';
import { driversOf } from '../../src/broker/scheduler/driver-config.js';
import { ConfigFields } from '../../src/leaves/config-fields.js';

const QEMU = {
  type: 'qemu',
  source: 'tcp:{source}:4444',
  target: 'unix:/run/vms/{vm}.{target}',
  migrate: 'tcp:{target}:4445',
};

const read = (drivers: object) => driversOf(new ConfigFields('drivers', drivers));

t.test('drivers are commands unless they say otherwise', async (t) => {
  t.same(read({ x: { command: ['/x', 'y'] } }), [
    { type: 'exec', name: 'x', command: ['/x', 'y'], timeout: 600_000 },
  ]);
  t.same(read({ q: { ...QEMU, capabilities: ['xbzrle'], start: ['/start'], timeout: '2m' } }), [
    { ...QEMU, name: 'q', capabilities: ['xbzrle'], start: ['/start'], timeout: 120_000 },
  ]);
});

t.test('a QEMU driver that cannot be right is refused by the place of its fault', async (t) => {
  const wrong: [object, RegExp][] = [
    [{ type: 'xen' }, /q\.type: there are no drivers of type 'xen'/],
    [{ source: undefined }, /q\.source: give a text/],
    [{ source: '/run/a' }, /q\.source: not the address of a QEMU monitor/],
    [{ source: 'unix:/run/{host}' }, /q\.source: '\{host\}' stands for nothing/],
    [{ target: 'tcp:{target' }, /q\.target: '\{target' stands for nothing/],
    [{ migrate: 'exec:cat >/dev/sda' }, /q\.migrate: not a way to send a VM/],
    [{ migrate: 'tcp:{target}' }, /q\.migrate/],
    [{ capabilities: ['a b'] }, /q\.capabilities/],
    [{ capabilities: 'xbzrle' }, /q\.capabilities/],
    [{ start: ['relative'] }, /q\.start: .*absolute path/],
    [{ command: ['/x'] }, /unknown key 'command'/],
    [{ timeout: '0s' }, /q\.timeout/],
  ];
  for (const [change, message] of wrong)
    t.throws(
      () => read({ q: { ...QEMU, ...change } }),
      { code: 'INVALID_ARGUMENT', message },
      JSON.stringify(change),
    );
});
