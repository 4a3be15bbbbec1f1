/** The daemons of a topology. */
import t from 'tap';
import { checkTopology } from '../../src/broker/policy/topology.js';
import { DaemonHosts } from '../../src/daemon-hosts.js';

t.test('a host that the topology has lost is out of reach; its migrations are not gone', async (t) => {
  const topology = checkTopology({
    hosts: ['a', 'b'].map((name) => ({ name, control: `${name}:7070`, data: `${name}:7071` })),
    switches: ['tor'],
    links: ['a', 'b'].map((name) => ({ name: `link-${name}`, between: [name, 'tor'], capacity: '1Gbit/s' })),
  });
  using hosts = new DaemonHosts({ addressesOf: (name) => topology.host(name) });
  const { signal } = new AbortController();
  const lost = { code: 'UNAVAILABLE', message: /no host 'c': put it back/ };
  await t.rejects(hosts.watch('c', 'm1', signal)[Symbol.asyncIterator]().next(), lost);
  await t.rejects(hosts.cancel('c', 'm1', signal), lost);
  await t.rejects(hosts.list('c', signal), lost);
  await t.rejects(hosts.describe('c', ['vm.raw'], signal), lost);
});
