/**
 * What the scripts for OpenNebula see: a front end with its drivers installed, and two hosts with a daemon each. A host
 * is a mount namespace in which the datastore is that host's own folder; `ssh` runs its command there.
 */
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type ControlClient, connect } from '../../src/control/control-client.js';
import { parseHostPort } from '../../src/leaves/host-port.js';
import { isFinal, type MigrationSnapshot } from '../../src/leaves/migration.js';
import { UNLIMITED } from '../../src/leaves/units.js';
import { makeSparseImage } from '../support/files.js';
import type { RunResult } from '../support/run.js';
import { CLI, run, runOk } from '../support/run.js';
import type { Teardown } from '../support/scratch.js';
import { scratchDir } from '../support/scratch.js';
import { TestDaemon } from '../support/test-daemon.js';

/** build*\/test/opennebula/ is three folders below the checkout. */
export const SCRIPTS = fileURLToPath(new URL('../../../scripts/opennebula/', import.meta.url));

export const VM = 7;
const MIB = 2 ** 20;
export const DISK_BYTES = 8 * MIB;

const SSH = `#!/bin/sh
# Stands in for ssh: options, a host, a command.
while [ "$1" = -o ]; do shift 2; done
host=$1; shift
printf '%s %s\\n' "$host" "$*" >>"$CLOUD/ssh.log"
if [ -s "$CLOUD/match" ] && printf '%s %s\\n' "$host" "$*" | tr '\\n' ' ' | grep -qf "$CLOUD/match"; then
  . "$CLOUD/then"
fi
. "$CLOUD/hosts/$host"
[ -d "/proc/$pid/ns" ] || { echo "ssh: connect to host $host port 22: Connection refused" >&2; exit 255; }
export MIGRATEFS_SERVER="$server"
exec nsenter --mount --target "$pid" -- sh -c "$*"
`;
const ONEVM = `#!/bin/sh
# Stands in for onevm show -x ID.
cat "$CLOUD/vm.xml"
`;
const ONEDATASTORE = `#!/bin/sh
# Stands in for onedatastore show -x ID.
echo "<DATASTORE><ID>$3</ID><BASE_PATH><![CDATA[$DATASTORE]]></BASE_PATH></DATASTORE>"
`;
const VIRSH = `#!/bin/sh
# Stands in for virsh --connect URI domstate NAME.
cat "$CLOUD/domstate"
`;
/** The stock driver would empty the directory: none of these may ever run. */
const STOCK = `#!/bin/sh
echo "$0 $*" >>"$CLOUD/stock.log"
`;
const STOCK_ACTIONS = [
  'clone',
  'failmigrate',
  'ln',
  'monitor',
  'monitor_ds',
  'mv',
  'postmigrate',
  'premigrate',
];

const program = (path: string, text: string): void => {
  writeFileSync(path, text);
  chmodSync(path, 0o755);
};

export type HostName = 'host-a' | 'host-b';
export type Action = 'premigrate' | 'postmigrate' | 'failmigrate';

export class Cloud {
  readonly #folder: string;
  readonly #daemons = new Map<HostName, TestDaemon>();
  readonly #clients = new Map<HostName, ControlClient>();
  #userTemplate: Readonly<Record<string, string>> = {};
  #sequence = 0;

  private constructor(folder: string) {
    this.#folder = folder;
  }

  static async start(t: Teardown): Promise<Cloud> {
    const cloud = new Cloud(scratchDir(t, 'one'));
    for (const folder of [
      'bin',
      'hosts',
      'remotes/tm/ssh',
      'remotes/tm/ceph',
      'datastores/0',
      'host-a',
      'host-b',
    ])
      mkdirSync(cloud.path(folder), { recursive: true });
    for (const [name, text] of Object.entries({
      ssh: SSH,
      onevm: ONEVM,
      onedatastore: ONEDATASTORE,
      virsh: VIRSH,
    }))
      program(cloud.path(`bin/${name}`), text);
    for (const action of STOCK_ACTIONS) program(cloud.path(`remotes/tm/ssh/${action}`), STOCK);
    program(
      cloud.path('remotes/tm/ceph/premigrate'),
      `#!/bin/sh\ncat >/dev/null\necho "$*" >>"$CLOUD/ceph.log"\n`,
    );
    await runOk(join(SCRIPTS, 'install'), [cloud.path('remotes')]);
    writeFileSync(
      cloud.path('remotes/etc/tm/migratefs/migratefs.conf'),
      `MIGRATEFS_COMMAND='${process.execPath} ${CLI}'\nMIGRATEFS_POLL_SECONDS=0.1\nMIGRATEFS_LOG=${cloud.path('log')}\n`,
    );
    await Promise.all((['host-a', 'host-b'] as const).map((name) => cloud.#startHost(t, name)));
    return cloud;
  }

  path(name: string): string {
    return join(this.#folder, name);
  }

  daemon(host: HostName): TestDaemon {
    return this.#daemons.get(host)!;
  }

  /** The VM's directory as OpenNebula names it on every host. */
  get dir(): string {
    return this.path(`datastores/0/${VM}`);
  }

  /** A file of the VM's directory as a process on the host sees it. */
  at(host: HostName, name = ''): string {
    return join(`/proc/${this.daemon(host).pid}/root`, this.dir, name);
  }

  /** Makes the VM's directory on `host` as it is in a real datastore, and only there. */
  makeVm(host: HostName): void {
    for (const each of ['host-a', 'host-b'] as const) rmSync(this.at(each), { recursive: true, force: true });
    mkdirSync(this.at(host, 'disk.0.snap'), { recursive: true });
    makeSparseImage(this.at(host, 'disk.0.snap/0'), DISK_BYTES, [{ offset: 0, length: 2 * MIB }], 1);
    symlinkSync('disk.0.snap/0', this.at(host, 'disk.0'));
    symlinkSync('.', this.at(host, 'disk.0.snap/disk.0.snap'));
    makeSparseImage(this.at(host, 'disk.1'), MIB, [{ offset: 0, length: 65536 }], 2);
    writeFileSync(this.at(host, 'vm.xml'), '<VM/>');
    writeFileSync(this.at(host, 'nvram.fd'), 'nvram');
    writeFileSync(this.at(host, '.monitor'), 'ssh');
  }

  /** The next migration: a new history record, and the state MIGRATE. */
  begin(userTemplate: Readonly<Record<string, string>> = {}): void {
    this.#sequence += 2;
    this.#userTemplate = userTemplate;
    this.state('MIGRATE', 'host-b');
  }

  /** What `onevm show` says from now on. */
  state(state: 'MIGRATE' | 'RUNNING', host: HostName): void {
    writeFileSync(this.path('vm.xml'), this.#xml(state, host));
  }

  /** Runs a driver as OpenNebula does. */
  tm(
    action: Action,
    extra: readonly string[] = [],
    from: HostName = 'host-a',
    to: HostName = 'host-b',
  ): Promise<RunResult> {
    const dir = `${this.path('datastores')}//0/${VM}`;
    const script = this.path(`remotes/tm/migratefs/${action}`);
    return this.#script([script, from, to, dir, `${VM}`, '0', ...extra]);
  }

  /** Runs the hook; it was called when `host` had the VM. */
  hook(host: HostName): Promise<RunResult> {
    return this.#script([this.path('remotes/hooks/migratefs-reconcile')], this.#xml('RUNNING', host));
  }

  monitor(xml: string): Promise<RunResult> {
    return this.#script([this.path('remotes/tm/migratefs/monitor'), '0'], xml);
  }

  /** From now on a command on a host that matches (grep, `HOST 'command' …`) is preceded by these lines of shell. */
  when(pattern: string, then: string): void {
    writeFileSync(this.path('then'), then);
    writeFileSync(this.path('match'), `${pattern}\n`);
  }

  undisturb(): void {
    rmSync(this.path('match'), { force: true });
  }

  text(name: string): string {
    return existsSync(this.path(name)) ? readFileSync(this.path(name), 'utf8') : '';
  }

  /** Names of the VM's directory on a host; empty where there is none. */
  names(host: HostName): readonly string[] {
    return existsSync(this.at(host))
      ? (readdirSync(this.at(host), { recursive: true }) as string[]).sort()
      : [];
  }

  /** Who owns an image; its error code where nobody can. */
  async roleOf(host: HostName, name = 'disk.0.snap/0'): Promise<string> {
    const [image] = await this.#client(host).describeImages([`${VM}/${name}`]);
    return 'error' in image! ? image.error.code : image!.role;
  }

  /** Migrations at the host that have not ended. */
  async running(host: HostName): Promise<readonly MigrationSnapshot[]> {
    return (await this.#client(host).list()).filter(({ state }) => !isFinal(state));
  }

  /** A migration of one image from host-a to host-b that the drivers know nothing of. */
  async migrate(name: string): Promise<MigrationSnapshot> {
    return this.#client('host-a').start({
      images: [`${VM}/${name}`],
      target: this.daemon('host-b').dataAddress,
      cutover: 'explicit',
      netLimit: UNLIMITED,
      diskLimit: UNLIMITED,
      priority: 0,
    });
  }

  cancel(host: HostName, id: string): Promise<MigrationSnapshot> {
    return this.#client(host).cancel(id);
  }

  #client(host: HostName): ControlClient {
    return this.#clients.get(host)!;
  }

  /** Its process id is kept in the file `pid`, for what has to end it. */
  #script(command: readonly string[], xml = this.#xml('MIGRATE', 'host-b')): Promise<RunResult> {
    return run('sh', ['-c', 'echo $$ >"$CLOUD/pid"; exec "$@"', 'sh', ...command], {
      input: Buffer.from(xml).toString('base64'),
      env: {
        PATH: `${this.path('bin')}:${process.env['PATH']}`,
        CLOUD: this.#folder,
        DATASTORE: this.path('datastores/0'),
        TMPDIR: this.#folder,
        NODE: process.execPath,
        CLI,
      },
    });
  }

  #xml(state: 'MIGRATE' | 'RUNNING', host: HostName): string {
    const wishes = Object.entries(this.#userTemplate)
      .map(([name, value]) => `<${name}><![CDATA[${value}]]></${name}>`)
      .join('');
    return (
      `<VM><ID>${VM}</ID><STATE>3</STATE><LCM_STATE>${state === 'MIGRATE' ? 4 : 3}</LCM_STATE>` +
      `<DEPLOY_ID>one-${VM}</DEPLOY_ID><TEMPLATE><DISK><TM_MAD><![CDATA[migratefs]]></TM_MAD></DISK>` +
      '<DISK><TM_MAD><![CDATA[ceph]]></TM_MAD></DISK><DISK><TM_MAD><![CDATA[ssh]]></TM_MAD></DISK></TEMPLATE>' +
      `<USER_TEMPLATE><NOTE><![CDATA[a > b & <c>]]></NOTE>${wishes}</USER_TEMPLATE><HISTORY_RECORDS>` +
      `<HISTORY><SEQ>${this.#sequence - 1}</SEQ><HOSTNAME>host-a</HOSTNAME><DS_ID>0</DS_ID><TM_MAD><![CDATA[migratefs]]></TM_MAD></HISTORY>` +
      `<HISTORY><SEQ>${this.#sequence}</SEQ><HOSTNAME>${host}</HOSTNAME><DS_ID>0</DS_ID><TM_MAD><![CDATA[migratefs]]></TM_MAD></HISTORY>` +
      '</HISTORY_RECORDS></VM>'
    );
  }

  async #startHost(t: Teardown, name: HostName): Promise<void> {
    const datastore = this.path('datastores/0');
    const daemon = await TestDaemon.start(t, {
      imageDir: datastore,
      mountpoint: datastore,
      prefix: [
        'unshare',
        '--mount',
        'sh',
        '-c',
        // A copy of another daemon's mount would keep that daemon from ending.
        `for point in $(awk '/ - fuse/ {print $5}' /proc/self/mountinfo | tac); do umount -l "$point"; done
        mount --bind "$0" "$1" && shift && exec "$@"`,
        this.path(name),
        datastore,
      ],
    });
    const client = connect({ server: parseHostPort(daemon.controlAddress) });
    t.teardown(() => client.close());
    this.#daemons.set(name, daemon);
    this.#clients.set(name, client);
    writeFileSync(this.path(`hosts/${name}`), `pid=${daemon.pid}\nserver=${daemon.controlAddress}\n`);
  }
}
