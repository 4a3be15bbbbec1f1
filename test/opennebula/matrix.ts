/** The long matrix: every step fails, or is cancelled, and the same call is made again. `npm run test:opennebula`. */
import { mkdirSync, writeFileSync } from 'node:fs';
import t, { type Test } from 'tap';
import { rewriteBlock, writeRefusal } from '../support/cutover.js';
import { runOk } from '../support/run.js';
import { Cloud } from './cloud.js';

// All of it together; run by itself a file of tests has 30 s.
t.setTimeout(30 * 60_000);
const cloud = await Cloud.start(t);
const DISK = 'disk.0.snap/0';
const UNREACHABLE = 'echo "ssh: connect to host $host port 22: No route to host" >&2; exit 255';
/** The signal arrives while the script waits for this command. */
const KILLED = 'kill -TERM "$(cat "$CLOUD/pid")"';
const RECOVERED = 'sed -i "s|<LCM_STATE>4<|<LCM_STATE>3<|" "$CLOUD/vm.xml"';
const CANCELLED =
  '. "$CLOUD/hosts/host-a"; for id in $(env MIGRATEFS_SERVER="$server" "$NODE" "$CLI" status --json | ' +
  `grep -o '"id":"[^"]*","role":"source","state":"[a-z-]*"' | grep -v 'completed\\|cancelled\\|failed' | cut -d '"' -f 4); ` +
  'do env MIGRATEFS_SERVER="$server" "$NODE" "$CLI" cancel "$id" >/dev/null 2>&1; done';

const fresh = (): void => {
  cloud.undisturb();
  cloud.makeVm('host-a');
  cloud.begin();
};

/** G4: as if nothing had happened. */
const untouched = async (t: Test): Promise<void> => {
  t.strictSame(await cloud.running('host-a'), [], 'no migration is left at the source');
  t.strictSame(cloud.names('host-b'), [], 'nothing is left on the target');
  t.equal(await writeRefusal(cloud.at('host-a', DISK)), '', 'the source takes writes');
};

const STEPS: Readonly<Record<string, string>> = {
  'the directory is looked for': "host-a 'test' '-d'",
  'the images are listed': "host-a .*'find\\|host-a .*-type f -path",
  'the target is asked who it is': "host-b .*'status' '--json'",
  'the source is asked who it is': "host-a .*'status' '--json'",
  'backing files are read': 'host-a .*qemu-img',
  'the directory is made': "host-b 'mkdir'",
  'the migration starts': "host-a .*'migrate'",
  'the small files are read': 'host-a .*tar --null',
  'the small files are written': 'host-b .*tar -C',
};

for (const [step, pattern] of Object.entries(STEPS)) {
  t.test(`premigrate fails when ${step}, twice; then it succeeds`, async (t) => {
    fresh();
    cloud.when(pattern, UNREACHABLE);
    for (const round of ['first', 'repeated']) {
      const { code, stderr } = await cloud.tm('premigrate');
      t.equal(code, 1, round);
      t.match(stderr, /^migratefs premigrate: VM 7: [^\n]*No route to host[^\n]*\n$/, 'one plain line');
    }
    cloud.undisturb();
    await cloud.tm('failmigrate');
    await untouched(t);
    t.equal((await cloud.tm('premigrate')).code, 0, 'works when the host is back');
    await cloud.tm('failmigrate');
    await untouched(t);
  });
}

const ABORTS: Readonly<Record<string, readonly [pattern: string, then: string, words: RegExp]>> = {
  'killed at the start': ["host-a .*'migrate'", KILLED, /stopped by a signal/],
  'killed while it waits': ["host-a .*'status' '[0-9a-f]", KILLED, /stopped by a signal/],
  'killed in the copy of the small files': ['host-b .*tar -C', KILLED, /stopped by a signal/],
  'cancelled while it waits': ["host-a .*'status' '[0-9a-f]", CANCELLED, /was cancelled/],
  'cancelled after it was in sync': ['host-b .*tar -C', CANCELLED, /was cancelled/],
  'recovered in OpenNebula meanwhile': ['host-b .*tar -C', RECOVERED, /not in the state MIGRATE/],
};

for (const [what, [pattern, then, words]] of Object.entries(ABORTS)) {
  t.test(
    `premigrate is ${what}: it ends everything itself, and failmigrate finds nothing to do, twice`,
    async (t) => {
      fresh();
      cloud.when(pattern, then);
      const { code, stderr } = await cloud.tm('premigrate');
      t.equal(code, 1);
      t.match(stderr, words);
      t.equal(stderr.split('\n').length, 2, 'one line');
      cloud.undisturb();
      await untouched(t);
      for (const round of ['first', 'repeated']) t.equal((await cloud.tm('failmigrate')).code, 0, round);
      await untouched(t);
    },
  );
}

t.test('a migration that somebody else began goes on, whatever OpenNebula tries', async (t) => {
  fresh();
  const { id } = await cloud.migrate(DISK);
  for (const action of ['premigrate', 'failmigrate', 'failmigrate'] as const) {
    const { code, stderr } = await cloud.tm(action);
    t.equal(code, 1, action);
    t.match(stderr, `migration ${id} of the disks in ${cloud.dir} was begun by somebody else and goes on`);
    t.equal(stderr.split('\n').length, 2, 'one line');
  }
  t.strictSame(
    (await cloud.running('host-a')).map((each) => each.id),
    [id],
  );
  t.equal(await cloud.roleOf('host-b'), 'replica', 'its copy stays');
  await cloud.cancel('host-a', id);
});

t.test('failmigrate deletes nothing after the target has taken the disks over', async (t) => {
  fresh();
  t.equal((await cloud.tm('premigrate')).code, 0);
  await rewriteBlock(cloud.at('host-a', DISK), cloud.at('host-b', DISK), 0);
  for (const round of ['first', 'repeated']) {
    const { code, stderr } = await cloud.tm('failmigrate');
    t.equal(code, 1, round);
    t.match(
      stderr,
      /^migratefs failmigrate: VM 7: host-b took the disks over and has the newest data [^\n]*\n$/,
    );
  }
  t.equal(await cloud.roleOf('host-a'), 'fenced');
  t.equal(await cloud.roleOf('host-b'), 'owner');
  t.ok(cloud.names('host-b').includes(DISK));
});

t.test('failmigrate that cannot ask a host deletes nothing, and ends it when the host is back', async (t) => {
  for (const host of ['host-a', 'host-b']) {
    fresh();
    t.equal((await cloud.tm('premigrate')).code, 0);
    cloud.when(`^${host} `, UNREACHABLE);
    for (const round of ['first', 'repeated']) {
      const { code, stderr } = await cloud.tm('failmigrate');
      t.equal(code, 1, `${host}, ${round}`);
      t.match(stderr, /^migratefs failmigrate: VM 7: [^\n]*No route to host[^\n]*\n$/);
    }
    cloud.undisturb();
    t.equal((await cloud.tm('failmigrate')).code, 0, `${host} is back`);
    await untouched(t);
  }
});

t.test(
  'postmigrate keeps the source directory when a host cannot be asked, and removes it when it can',
  async (t) => {
    for (const host of ['host-a', 'host-b']) {
      fresh();
      t.equal((await cloud.tm('premigrate')).code, 0);
      await rewriteBlock(cloud.at('host-a', DISK), cloud.at('host-b', DISK), 0);
      cloud.when(`^${host} `, UNREACHABLE);
      for (const round of ['first', 'repeated']) {
        const { code, stderr } = await cloud.tm('postmigrate');
        t.equal(code, 0, `${host}, ${round}`);
        t.match(stderr, /^migratefs postmigrate: VM 7: [^\n]*No route to host: \S+ stays on host-a\n$/);
        t.ok(cloud.names('host-a').includes(DISK), 'kept');
      }
      cloud.undisturb();
      t.equal((await cloud.tm('postmigrate')).stderr, '');
      t.strictSame(cloud.names('host-a'), []);
      t.equal(await cloud.roleOf('host-b'), 'owner');
    }
  },
);

t.test('postmigrate hands over the disks of a guest that has not written yet', async (t) => {
  fresh();
  t.equal((await cloud.tm('premigrate')).code, 0);
  t.equal((await cloud.tm('postmigrate')).stderr, '');
  t.strictSame(cloud.names('host-a'), []);
  t.equal(await cloud.roleOf('host-b'), 'owner');
});

t.test('postmigrate keeps the source directory when the migration was cancelled', async (t) => {
  fresh();
  t.equal((await cloud.tm('premigrate')).code, 0);
  const [migration] = await cloud.running('host-a');
  await cloud.cancel('host-a', migration!.id);
  for (const round of ['first', 'repeated']) {
    const { code, stderr } = await cloud.tm('postmigrate');
    t.equal(code, 0, round);
    t.match(stderr, /do not agree that host-b owns the disks [^\n]* stays on host-a\n$/);
  }
  t.equal(await writeRefusal(cloud.at('host-a', DISK)), '', 'the source takes writes');
});

t.test('disks that are on the target already are not touched', async (t) => {
  fresh();
  mkdirSync(cloud.at('host-b'));
  writeFileSync(cloud.at('host-b', 'disk.1'), 'of somebody');
  for (const round of ['first', 'repeated']) {
    const { code, stderr } = await cloud.tm('premigrate');
    t.equal(code, 1, round);
    t.match(stderr, /disk\.1[^\n]*was not touched: remove it [^\n]*\n$/);
  }
  t.equal((await cloud.tm('failmigrate')).code, 0);
  t.strictSame(cloud.names('host-b'), ['disk.1']);
  t.strictSame(await cloud.running('host-a'), []);
});

t.test('a backing file outside the directory has to be on the target', async (t) => {
  fresh();
  const base = cloud.path('base.raw');
  await runOk('qemu-img', ['create', '-f', 'raw', base, '1M']);
  // Both hosts see this folder, as they would see one that was copied there.
  const image = `${cloud.dir}/disk.2`;
  const onSource = ['--mount', '--target', `${cloud.daemon('host-a').pid}`, '--'];
  await runOk('nsenter', [...onSource, 'qemu-img', 'create', '-f', 'qcow2', '-b', base, '-F', 'raw', image]);
  t.equal((await cloud.tm('premigrate')).code, 0, 'it is there');
  await cloud.tm('failmigrate');
  cloud.when(
    'host-b .*stat -L',
    'sed "s|base.raw|elsewhere.raw|" | exec nsenter --mount --target "$$" -- sh -c "$*"; exit',
  );
  const { code, stderr } = await cloud.tm('premigrate');
  t.equal(code, 1);
  t.match(stderr, /backing file \S*elsewhere\.raw is not on host-b/);
});

t.test('wishes that are no wishes are refused before anything moves', async (t) => {
  for (const [name, value] of [
    ['MIGRATEFS_DEADLINE', '1m; reboot'],
    ['MIGRATEFS_PRIORITY', '10'],
  ] as const) {
    fresh();
    cloud.begin({ [name]: value });
    const { code, stderr } = await cloud.tm('premigrate');
    t.equal(code, 1);
    t.match(stderr, new RegExp(`${name} is no`));
    await untouched(t);
  }
});

t.test('the hook ends what nobody else has ended', async (t) => {
  writeFileSync(cloud.path('domstate'), 'running\n\n');
  await t.test('the VM never left: cancelled', async (t) => {
    fresh();
    t.equal((await cloud.tm('premigrate')).code, 0);
    cloud.state('RUNNING', 'host-a');
    for (const round of ['first', 'repeated']) t.equal((await cloud.hook('host-a')).code, 0, round);
    t.strictSame(await cloud.running('host-a'), []);
    t.equal(await cloud.roleOf('host-a'), 'owner');
  });
  await t.test('the VM has moved: handed over', async (t) => {
    fresh();
    t.equal((await cloud.tm('premigrate')).code, 0);
    cloud.state('RUNNING', 'host-b');
    t.equal((await cloud.hook('host-b')).code, 0);
    t.equal(await cloud.roleOf('host-b'), 'owner');
    t.equal(await cloud.roleOf('host-a'), 'fenced');
  });
  await t.test('it migrates: nothing', async (t) => {
    fresh();
    t.equal((await cloud.tm('premigrate')).code, 0);
    t.equal((await cloud.hook('host-a')).code, 0);
    t.equal((await cloud.running('host-a')).length, 1);
  });
  await t.test('libvirt does not know it there: nothing', async (t) => {
    writeFileSync(cloud.path('domstate'), 'shut off\n\n');
    cloud.state('RUNNING', 'host-a');
    t.equal((await cloud.hook('host-a')).code, 0);
    t.equal((await cloud.running('host-a')).length, 1);
    await cloud.tm('failmigrate');
  });
});

t.test('monitor reports the host with the least free space', async (t) => {
  cloud.when("host-b 'df'", 'echo "Filesystem 1M-blocks Used Available"; echo "x 1000 990 10 99% /"; exit');
  const folder = `<DATASTORE_LOCATION>${cloud.path('datastores')}</DATASTORE_LOCATION>`;
  const hosts =
    '<DATASTORE><TEMPLATE><BRIDGE_LIST><![CDATA[host-a host-b]]></BRIDGE_LIST></TEMPLATE></DATASTORE>';
  const { code, stdout } = await cloud.monitor(
    `<DS_DRIVER_ACTION_DATA>${folder}${hosts}</DS_DRIVER_ACTION_DATA>`,
  );
  t.equal(code, 0);
  t.equal(stdout, 'USED_MB=990\nTOTAL_MB=1000\nFREE_MB=10\n');
  cloud.undisturb();
});
