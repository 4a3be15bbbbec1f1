import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { hostInterfaces, parseCounters, parseRoute } from '../../../src/broker/hot-spots/host-interfaces.js';
import { scratchDir } from '../../support/scratch.js';

// proc_pid_net(5); the line of eth1 has no blank after its colon, as wide counters had on older kernels.
const NET_DEV = `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo: 2776770   11307    0    0    0     0          0         0  2776770   11307    0    0    0     0       0          0
  eth0: 1215645    2751    0    0    0     0          0         0  1782404    4324    0    0    0   427       0          0
  eth1:9007199254740991 5552 0 0 0 0 0 0 354130 5669 0 0 0 0 0 0
eth0:1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16
  ppp0: 1622 11 0
`;

t.test('bytes received and sent of each interface but loopback', async (t) => {
  t.strictSame(
    [...parseCounters(NET_DEV)],
    [
      ['eth0', { received: 1_215_645, sent: 1_782_404 }],
      ['eth1', { received: 9_007_199_254_740_991, sent: 354_130 }],
      ['eth0:1', { received: 1, sent: 9 }],
    ],
  );
  t.strictSame([...parseCounters('')], []);
});

t.test('the device of a route', async (t) => {
  // ip-route(8), with -j.
  t.equal(parseRoute('[{"dst":"10.0.0.2","gateway":"10.0.0.1","dev":"eth0","prefsrc":"10.0.0.3"}]'), 'eth0');
  for (const other of ['', '[]', '{}', '[{"dev":7}]', 'RTNETLINK answers: Network is unreachable'])
    t.equal(parseRoute(other), undefined);
});

t.test('the speed of real interfaces only, and what virtual ones are made of', async (t) => {
  const folder = scratchDir(t);
  const sysNet = join(folder, 'net');
  const add = (name: string, speed: string, parts: readonly string[] = []): void => {
    mkdirSync(join(sysNet, name), { recursive: true });
    writeFileSync(join(sysNet, name, 'speed'), speed);
    for (const part of parts) {
      if (part.startsWith('lower_')) symlinkSync('../elsewhere', join(sysNet, name, part));
      else mkdirSync(join(sysNet, name, part));
    }
  };
  add('eth0', '10000\n', ['device']);
  add('virtio0', '-1\n', ['device']);
  add('veth0', '10000\n');
  add('bond0', '20000\n', ['bonding', 'lower_eth0', 'lower_eth1']);
  const host = hostInterfaces(join(folder, 'dev'), sysNet);
  t.equal(host.speed('eth0'), 1.25e9);
  t.equal(host.speed('virtio0'), undefined, 'unknown to its driver');
  t.equal(host.speed('veth0'), undefined, 'made up');
  t.equal(host.speed('bond0'), 2.5e9);
  t.equal(host.speed('nothing'), undefined);
  t.strictSame([...host.below('bond0')].sort(), ['eth0', 'eth1']);
  t.strictSame(host.below('nothing'), []);
  t.throws(() => host.counters(), { code: 'ENOENT' });
});

t.test('this host: counters are read, and loopback leads to itself', async (t) => {
  const host = hostInterfaces();
  t.notOk(host.counters().has('lo'));
  const { signal } = new AbortController();
  t.equal(await host.towards('127.0.0.1', signal), 'lo');
  t.equal(await host.towards('localhost', signal), 'lo');
  t.equal(await host.towards('fe80::1%eth7', signal), 'eth7');
  await t.rejects(host.towards('127.0.0.1', AbortSignal.abort()), { name: 'AbortError' });
});
