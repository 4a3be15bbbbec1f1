/**
 * A libvirt of its own for one host of a test bed: libvirtd in namespaces for network, mounts, names and processes, with
 * its folders in a scratch folder. Its virtual machines end with it, whatever kills the test.
 */
import { spawn, spawnSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { run, runOk } from '../support/run.js';
import { guardProcess, releaseProcess, type Teardown } from '../support/scratch.js';
import type { BedHost } from '../support/test-bed.js';
import { waitFor } from '../support/wait-for.js';

/** What it takes beside QEMU. */
const PROGRAMS = ['libvirtd', 'virsh'];
const PACKAGES = 'libvirt-daemon libvirt-clients libvirt-daemon-driver-qemu';

/** Why there can be none here; undefined: there can. */
export const libvirtMissing = (): string | undefined => {
  const missing = PROGRAMS.find((program) => spawnSync(program, ['--version']).status !== 0);
  return missing && `there is no ${missing}: apt-get install --no-install-recommends ${PACKAGES}`;
};

/** Folders that every host sees under the same path, with contents of its own in the first two. */
export interface SharedPaths {
  readonly images: string;
  /** Of the host: consoles, monitors. */
  readonly host: string;
  /** The RAM of the guests, one for all hosts. */
  readonly ram: string;
}

export const makeSharedPaths = (folder: string): SharedPaths => {
  const paths = { images: join(folder, 'images'), host: join(folder, 'host'), ram: join(folder, 'ram') };
  for (const path of Object.values(paths)) mkdirSync(path, { recursive: true });
  return paths;
};

const LIBVIRTD_CONF = (address: string): string => `
listen_tls = 0
listen_tcp = 1
listen_addr = "${address}"
auth_tcp = "none"
auth_unix_rw = "none"
host_uuid = "${randomUUID()}"
`;

const QEMU_CONF = (ram: string): string => `
security_driver = "none"
user = "root"
group = "root"
cgroup_controllers = [ ]
namespaces = [ ]
stdio_handler = "file"
memory_backing_dir = "${ram}"
`;

/** `sh -c SCRIPT sh NAME FOLDER IMAGES SHARED-IMAGES SHARED-HOST`, as the first process of its namespace. */
const SCRIPT = `
set -eu
mkdir -p /etc/libvirt /var/lib/libvirt /var/log/libvirt /var/cache/libvirt
mount --make-rprivate /
mount --bind "$2/etc" /etc/libvirt
mount --bind "$2/lib" /var/lib/libvirt
mount --bind "$2/log" /var/log/libvirt
mount --bind "$2/cache" /var/cache/libvirt
mount -t tmpfs run /run
mount --bind "$2/passwd" /etc/passwd
mount --bind "$2/group" /etc/group
mount --bind "$3" "$4"
mount --bind "$2/host" "$5"
hostname "$1"
# It asks for the user that it would be under by default, even if it is to be another.
libvirtd --listen &
wait
`;

/** What the packages of a full installation would add, for the accounts that libvirtd looks up. */
const withAccount = (path: string, ...lines: string[]): string =>
  `${readFileSync(path, 'utf8').trimEnd()}\n${lines.join('\n')}\n`;

export class LibvirtHost {
  readonly uri: string;
  /** Its view of `SharedPaths.host`. */
  readonly folder: string;
  readonly #kill: () => Promise<void>;

  private constructor(uri: string, folder: string, kill: () => Promise<void>) {
    this.uri = uri;
    this.folder = folder;
    this.#kill = kill;
  }

  /** `images` is what it sees as the shared folder of images; `folder` is its own. */
  static async start(
    t: Teardown,
    { name, address, namespace }: BedHost,
    { folder, images, shared }: { folder: string; images: string; shared: SharedPaths },
  ): Promise<LibvirtHost> {
    for (const part of ['etc', 'lib', 'log', 'cache', 'host'])
      mkdirSync(join(folder, part), { recursive: true });
    writeFileSync(join(folder, 'etc/libvirtd.conf'), LIBVIRTD_CONF(address));
    writeFileSync(join(folder, 'etc/qemu.conf'), QEMU_CONF(shared.ram));
    writeFileSync(
      join(folder, 'passwd'),
      withAccount('/etc/passwd', 'libvirt-qemu:x:64055:64055::/:/bin/false'),
    );
    writeFileSync(
      join(folder, 'group'),
      withAccount('/etc/group', 'libvirt-qemu:x:64055:', 'kvm:x:64056:', 'tss:x:64057:'),
    );
    const [enter, ...args] = namespace.prefix;
    const child = spawn(
      enter!,
      [
        ...args,
        ...['unshare', '--mount', '--uts', '--pid', '--fork', '--kill-child', '--mount-proc'],
        ...['sh', '-c', SCRIPT, 'sh', name, folder, images, shared.images, shared.host],
      ],
      { stdio: ['ignore', 'ignore', 'pipe'] },
    );
    guardProcess(child.pid!);
    let said = '';
    child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      said = (said + text).slice(-4000);
    });
    const exited = new Promise<void>((resolve) => {
      child.once('close', () => {
        releaseProcess(child.pid!);
        resolve();
      });
    });
    const kill = async (): Promise<void> => {
      child.kill('SIGKILL');
      await exited;
    };
    t.teardown(kill);
    const host = new LibvirtHost(`qemu+tcp://${address}/system`, join(folder, 'host'), kill);
    await waitFor(async () => {
      if (child.exitCode !== null) throw new Error(`libvirtd has ended\n${said}`);
      return (await run('virsh', ['--connect', host.uri, 'version'])).code === 0;
    }, `libvirtd of ${name}`);
    return host;
  }

  /** What virsh prints; rejects when it fails. */
  async virsh(...args: string[]): Promise<string> {
    const { stdout } = await runOk('virsh', ['--quiet', '--connect', this.uri, ...args]);
    return stdout.trim();
  }

  /** Such as `running`; empty: it knows no such domain. */
  async stateOf(domain: string): Promise<string> {
    const names = (await this.virsh('list', '--all', '--name')).split('\n');
    return names.includes(domain) ? await this.virsh('domstate', domain) : '';
  }

  /** Whether its QEMU has made its monitor there. */
  hasMonitor(name: string): boolean {
    return existsSync(join(this.folder, name));
  }

  /** Ends it, and its virtual machines, as a power failure does. */
  kill(): Promise<void> {
    return this.#kill();
  }
}
