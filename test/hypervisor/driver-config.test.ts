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

const LIBVIRT = {
  type: 'libvirt',
  source: 'qemu+ssh://root@{source}/system',
  target: 'qemu+tls://{target}/system',
};

t.test('a libvirt driver says how both hosts are reached, and the rest has defaults', async (t) => {
  t.same(read({ l: LIBVIRT }), [
    {
      ...{ ...LIBVIRT, name: 'l', peer: LIBVIRT.target, domain: '{vm}', options: [], otherDisks: false },
      ...{ virsh: '/usr/bin/virsh', timeout: 600_000 },
    },
  ]);
  const chosen = {
    ...{ peer: 'qemu+tcp://{target}/system', 'migrate-uri': 'tcp://{target}:49152', domain: 'one-{vm}' },
    ...{ options: ['--tls', '--auto-converge'], downtime: '200ms', 'other-disks': true, virsh: '/opt/virsh' },
  };
  t.match(read({ l: { ...LIBVIRT, ...chosen, timeout: '1m' } }), [
    {
      ...{ peer: chosen.peer, migrateUri: chosen['migrate-uri'], domain: 'one-{vm}', downtime: 200 },
      ...{ options: chosen.options, otherDisks: true, virsh: '/opt/virsh', timeout: 60_000 },
    },
  ]);
});

t.test('a libvirt driver that cannot be right is refused by the place of its fault', async (t) => {
  const wrong: [object, RegExp][] = [
    [{ source: undefined }, /l\.source: give a text/],
    [{ source: 'host-a' }, /l\.source: cannot be used: 'host-a'; give a URI such as qemu\+ssh/],
    [{ target: 'xen:///system' }, /l\.target/],
    [{ target: 'qemu+ssh://{host}/system' }, /l\.target: '\{host\}' stands for nothing/],
    [{ peer: 'qemu+ssh://a b/system' }, /l\.peer/],
    [{ 'migrate-uri': 'exec:cat' }, /l\.migrate-uri/],
    [{ options: ['--copy-storage-all'] }, /l\.options: give a list of any of --auto-converge/],
    [{ options: ['--postcopy'] }, /l\.options/],
    [{ options: '--tls' }, /l\.options/],
    [{ downtime: '0s' }, /l\.downtime/],
    [{ 'other-disks': 'yes' }, /l\.other-disks: give true or false/],
    [{ virsh: 'virsh' }, /l\.virsh: give an absolute path/],
    [{ command: ['/x'] }, /unknown key 'command'/],
  ];
  for (const [change, message] of wrong)
    t.throws(
      () => read({ l: { ...LIBVIRT, ...change } }),
      { code: 'INVALID_ARGUMENT', message },
      JSON.stringify(change),
    );
});
