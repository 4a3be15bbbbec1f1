/** G7: a scheduler speaks TLS with its clients and with the daemons, as the certificates say. */
import t from 'tap';
import { SchedulerClient } from '../../src/control/scheduler-client.js';
import { parseHostPort } from '../../src/leaves/host-port.js';
import type { TaskRequest } from '../../src/leaves/scheduler.js';
import { isTaskFinal } from '../../src/leaves/scheduler.js';
import { readTlsIdentity } from '../../src/leaves/tls-identity.js';
import { makeSparseImage } from '../support/files.js';
import { scratchDir } from '../support/scratch.js';
import { TestDaemon, within } from '../support/test-daemon.js';
import { TestScheduler } from '../support/test-scheduler.js';
import type { TlsFiles } from '../support/tls-files.js';
import { makeTlsFiles, signCertificate } from '../support/tls-files.js';

const MB = 1e6;
const DONE_MAX_MS = 30_000;

const folder = scratchDir(t, 'certificates');
const admin = makeTlsFiles(folder, 'admin');
const peer = signCertificate(folder, 'admin', 'peer', '/CN=peer/OU=peer');

const tlsArgs = [`--tls-ca=${peer.ca}`, `--tls-cert=${peer.cert}`, `--tls-key=${peer.key}`];
const [here, there] = await Promise.all([
  TestDaemon.start(t, { extraArgs: tlsArgs }),
  TestDaemon.start(t, { extraArgs: tlsArgs }),
]);
makeSparseImage(here.below('vm.raw'), 4 * MB, [{ offset: 0, length: MB }]);

const request: TaskRequest = {
  vm: 'vm',
  images: ['vm.raw'],
  source: 'here',
  target: 'there',
  priority: 0,
  important: false,
  writeRate: 0,
  insist: false,
};

const startScheduler = (t: Parameters<typeof TestScheduler.start>[0], { ca, cert, key }: TlsFiles) =>
  TestScheduler.start(t, {
    topology: {
      hosts: [
        { name: 'here', control: here.controlAddress, data: here.dataAddress },
        { name: 'there', control: there.controlAddress, data: there.dataAddress },
      ],
      links: [{ name: 'cable', between: ['here', 'there'], capacity: '10Gbit/s' }],
    },
    limits: { 'vmm-time': '100ms' },
    tls: { ca, cert, key },
  });

t.test('the certificate of a peer moves nothing', async (t) => {
  const asPeer = await startScheduler(t, peer);
  using client = new SchedulerClient({
    server: parseHostPort(asPeer.address),
    tls: readTlsIdentity(admin)!,
  });
  await t.rejects(client.submit(request), { code: 'PERMISSION_DENIED', message: /role peer/ });
});

t.test('with the certificate of an admin a task is done from end to end', async (t) => {
  const scheduler = await startScheduler(t, admin);
  const server = parseHostPort(scheduler.address);
  await t.rejects(scheduler.connect(t).submit(request), { code: 'UNAVAILABLE' }, 'without a certificate');
  using client = new SchedulerClient({ server, tls: readTlsIdentity(admin)! });
  const { id } = await client.submit(request);
  const late = AbortSignal.timeout(DONE_MAX_MS);
  const ended = async () => {
    for await (const task of client.watch(id, late)) if (isTaskFinal(task.state)) return task;
    throw new Error('the watch ended before the task');
  };
  const task = await within(ended(), DONE_MAX_MS, () => `the task has not ended\n${scheduler.stderr}`);
  t.match(task, { state: 'done', error: undefined });
});
