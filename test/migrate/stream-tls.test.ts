/** G7: with certificates nothing of an image is readable on the way, neither its copy nor what guests write to it in sync. */
import { open, writeFile } from 'node:fs/promises';
import t, { type Test } from 'tap';
import { connect } from '../../src/control/control-client.js';
import { parseHostPort } from '../../src/leaves/host-port.js';
import { readTlsIdentity } from '../../src/leaves/tls-identity.js';
import { KiB, MiB, UNLIMITED } from '../../src/leaves/units.js';
import { CutProxy } from '../support/cut-proxy.js';
import { identical } from '../support/cutover.js';
import { enterLane, IMAGE } from '../support/in-lane.js';
import { Followed } from '../support/pair.js';
import { scratchDir } from '../support/scratch.js';
import { TestDaemon } from '../support/test-daemon.js';
import { makeTlsFiles } from '../support/tls-files.js';

const COPIED = 'what lay in the image';
const WRITTEN = 'what a guest wrote to';
const BLOCK = 4 * KiB;

/** Which of the texts come over each connection. */
const readOn = (proxy: CutProxy): Set<string>[] => {
  const seen: Set<string>[] = [];
  const tails: Buffer[] = [];
  proxy.onBytes = (chunk, connection) => {
    const all = Buffer.concat([tails[connection] ?? Buffer.alloc(0), chunk]);
    seen[connection] ??= new Set();
    for (const text of [COPIED, WRITTEN]) if (all.includes(text)) seen[connection].add(text);
    tails[connection] = all.subarray(-COPIED.length);
  };
  return seen;
};

const migrated = async (t: Test, certificates: boolean): Promise<Set<string>[]> => {
  const files = certificates ? makeTlsFiles(scratchDir(t, 'certificates'), 'host') : undefined;
  const extraArgs = files
    ? [`--tls-ca=${files.ca}`, `--tls-cert=${files.cert}`, `--tls-key=${files.key}`]
    : [];
  const [source, target] = await Promise.all([
    TestDaemon.start(t, { extraArgs }),
    TestDaemon.start(t, { extraArgs }),
  ]);
  await writeFile(source.below(IMAGE), Buffer.alloc(8 * MiB, COPIED));
  const proxy = await CutProxy.start(t, target.dataAddress);
  const seen = readOn(proxy);
  const tls = files && readTlsIdentity(files);
  const client = connect({ server: parseHostPort(source.controlAddress), ...(tls ? { tls } : {}) });
  t.teardown(() => client.close());
  const first = await client.start({
    images: [IMAGE],
    target: proxy.address,
    cutover: 'explicit',
    netLimit: UNLIMITED,
    diskLimit: UNLIMITED,
    priority: 0,
  });
  const migration = new Followed(t, client, first);
  await migration.reaches('mirroring');
  await enterLane({ source: { daemon: source } }, proxy);
  await using guest = await open(source.at(IMAGE), 'r+');
  const before = proxy.carried.at(-1)!;
  for (let at = 4 * MiB; at < 5 * MiB; at += BLOCK)
    await guest.write(Buffer.alloc(BLOCK, WRITTEN), 0, BLOCK, at);
  await guest.datasync();
  t.ok(proxy.carried.at(-1)! > before + MiB, 'over the stream');
  t.same((await client.verify(migration.id))[0]!.mismatches, []);
  await client.cutover(migration.id);
  t.ok(await identical(source.below(IMAGE), target.below(IMAGE)), 'the same on both sides');
  return seen;
};

const STREAM = 1;

t.test('without certificates both are', async (t) => {
  const seen = await migrated(t, false);
  t.same([...seen[STREAM]!].sort(), [WRITTEN, COPIED].sort());
});

t.test('with them nothing is', async (t) => {
  const seen = await migrated(t, true);
  t.equal(seen.length, 2, 'a connection and a stream');
  for (const texts of seen) t.same([...texts], []);
});
