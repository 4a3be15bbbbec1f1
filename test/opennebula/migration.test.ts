/** The drivers as OpenNebula calls them: a migration that succeeds, and one that fails, each call repeated. */
import { existsSync, lstatSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { identical, rewriteBlock, writeRefusal } from '../support/cutover.js';
import { run, runOk } from '../support/run.js';
import { type Action, Cloud, DISK_BYTES, SCRIPTS } from './cloud.js';

const cloud = await Cloud.start(t);
const DISK = 'disk.0.snap/0';
const QUIET = { code: 0, stderr: '' };

const outcome = async (action: Action): Promise<{ code: number | null; stderr: string }> => {
  const { code, stderr } = await cloud.tm(action);
  return { code, stderr };
};

t.test('a migration that fails leaves the source as it was, and nothing on the target', async (t) => {
  cloud.makeVm('host-a');
  cloud.begin();
  t.strictSame(await outcome('premigrate'), QUIET);
  t.equal(await cloud.roleOf('host-b'), 'replica');
  t.strictSame(await outcome('failmigrate'), QUIET);
  t.strictSame(cloud.names('host-b'), []);
  t.strictSame(await cloud.running('host-a'), []);
  t.equal(await writeRefusal(cloud.at('host-a', DISK)), '', 'the source takes writes');
});

t.test(
  'a migration that succeeds moves the directory, and the source is removed when both sides agree',
  async (t) => {
    cloud.makeVm('host-a');
    cloud.begin({ MIGRATEFS_DEADLINE: '10m', MIGRATEFS_PRIORITY: '3' });
    for (const round of ['first', 'repeated']) t.strictSame(await outcome('premigrate'), QUIET, round);
    const [migration, ...more] = await cloud.running('host-a');
    t.equal(more.length, 0, 'one migration');
    const { priority, deadline, startedAt } = migration!;
    t.equal(priority, 3, 'priority of the user template');
    const given = deadline! - startedAt!;
    t.ok(given > 590_000 && given < 610_000, `deadline of the user template: ${given} ms`);
    t.equal(readFileSync(cloud.at('host-b', 'vm.xml'), 'utf8'), '<VM/>');
    t.equal(readFileSync(cloud.at('host-b', 'nvram.fd'), 'utf8'), 'nvram');
    t.equal(readlinkSync(cloud.at('host-b', 'disk.0')), 'disk.0.snap/0');
    t.notOk(cloud.names('host-b').includes('.monitor'), '.monitor stays');
    t.match(cloud.text('ceph.log'), /host-a host-b \S+\/7 7 0 migratefs\n$/, 'the other driver is told');
    t.equal(cloud.text('stock.log'), '', 'the stock driver never runs');

    // The VM resumes on the target, and writes.
    await rewriteBlock(cloud.at('host-a', DISK), cloud.at('host-b', DISK), DISK_BYTES / 4);
    t.ok(await identical(cloud.at('host-a', DISK), cloud.at('host-b', DISK)));
    for (const round of ['first', 'repeated']) {
      t.strictSame(await outcome('postmigrate'), QUIET, round);
      t.strictSame(cloud.names('host-a'), [], 'the source directory is removed');
      t.equal(await cloud.roleOf('host-b'), 'owner');
    }
  },
);

t.test('the sixth argument, the same host, and input that is not read', async (t) => {
  writeFileSync(cloud.path('ssh.log'), '');
  for (const action of ['premigrate', 'postmigrate', 'failmigrate'] as const) {
    t.equal((await cloud.tm(action, ['ceph'])).code, 0, `${action} called by another driver`);
    t.equal((await cloud.tm(action, [], 'host-a', 'host-a')).code, 0, `${action} within a host`);
  }
  t.equal(cloud.text('ssh.log'), '', 'no host was asked');
});

t.test(
  'install links what is not ours to the stock driver, again too; uninstall takes only ours away',
  async (t) => {
    const remotes = cloud.path('remotes');
    await runOk(join(SCRIPTS, 'install'), [remotes]);
    t.equal(readlinkSync(join(remotes, 'tm/migratefs/clone')), '../ssh/clone');
    t.ok(lstatSync(join(remotes, 'tm/migratefs/premigrate')).isFile(), 'never the stock premigrate');
    t.match(
      readFileSync(join(remotes, 'tm/ssh/premigrate'), 'utf8'),
      /stock\.log/,
      'the stock driver is as it was',
    );
    const settings = join(remotes, 'etc/tm/migratefs/migratefs.conf');
    t.match(readFileSync(settings, 'utf8'), /POLL_SECONDS=0\.1/, 'settings are kept');
    await runOk(join(SCRIPTS, 'uninstall'), [remotes]);
    t.notOk(existsSync(join(remotes, 'tm/migratefs')));
    t.notOk(existsSync(join(remotes, 'hooks/migratefs-reconcile')));
    t.ok(existsSync(join(remotes, 'tm/ssh/clone')));
    t.ok(existsSync(settings), 'changed settings stay');
    t.not((await run(join(SCRIPTS, 'uninstall'), [cloud.path('elsewhere')])).code, 0, 'a mistyped folder');
  },
);
