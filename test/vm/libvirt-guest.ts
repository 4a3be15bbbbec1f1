/** The test guest as a libvirt domain, and its console, which moves with it from host to host. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { MiB } from '../../src/leaves/units.js';
import { runOk } from '../support/run.js';
import { guardProcess, releaseProcess, type Teardown } from '../support/scratch.js';
import { within } from '../support/test-daemon.js';
import type { Workload } from './guest.js';
import type { SharedPaths } from './libvirt-host.js';
import { type ConsoleLine, parseConsoleLine } from './records.js';

const BUILT = fileURLToPath(new URL('../../../build/guest/', import.meta.url));
const RAM_BYTES = 128 * MiB;
const WAIT_MAX_MS = 120_000;
const CONSOLE = 'console';
/** A second monitor of its QEMU, for what libvirt has no word for. */
export const MONITOR = 'monitor';

/** Definition of a domain with one raw disk. */
export const domainXml = (name: string, image: string, workload: Workload, paths: SharedPaths): string => {
  const { run, slots, rate, flush } = workload;
  return `<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>${name}</name>
  <memory unit='b'>${RAM_BYTES}</memory>
  <memoryBacking><source type='file'/><access mode='shared'/></memoryBacking>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <kernel>${join(BUILT, 'vmlinuz')}</kernel>
    <initrd>${join(BUILT, 'initrd')}</initrd>
    <cmdline>console=ttyS0 quiet panic=-1 no_timer_check nowatchdog writer=${run},${slots},${rate},${flush},/dev/vda</cmdline>
  </os>
  <features><acpi/></features>
  <on_reboot>destroy</on_reboot>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw' cache='writeback' discard='unmap'/>
      <source file='${join(paths.images, image)}'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <serial type='pipe'><source path='${join(paths.host, CONSOLE)}'/></serial>
  </devices>
  <qemu:commandline>
    <qemu:arg value='-qmp'/>
    <qemu:arg value='unix:${join(paths.host, MONITOR)},server=on,wait=off'/>
  </qemu:commandline>
</domain>
`;
};

/** The serial line of the guest on one host: two pipes, which exist before QEMU does. */
export class DomainConsole {
  readonly #input: number;
  readonly #lines: ConsoleLine[] = [];
  readonly #watchers = new Set<() => void>();
  #partial = '';

  private constructor(input: number) {
    this.#input = input;
  }

  /** In the folder that the host sees as `SharedPaths.host`. */
  static async create(t: Teardown, folder: string): Promise<DomainConsole> {
    const [fromGuest, toGuest] = ['out', 'in'].map((end) => join(folder, `${CONSOLE}.${end}`));
    await runOk('mkfifo', [fromGuest!, toGuest!]);
    // Both ends are opened for both directions, so that the end of a QEMU ends nothing here.
    const input = openSync(toGuest!, 'r+');
    const reader = spawn('sh', ['-c', 'exec cat <>"$0"', fromGuest!], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    const exited = once(reader, 'close');
    guardProcess(reader.pid!);
    const said = new DomainConsole(input);
    reader.stdout.setEncoding('latin1').on('data', (text: string) => said.#take(text));
    t.teardown(async () => {
      reader.kill('SIGKILL');
      await exited;
      releaseProcess(reader.pid!);
      closeSync(input);
    });
    return said;
  }

  get lines(): readonly ConsoleLine[] {
    return this.#lines;
  }

  /** Resolves with the first line, said already or later, that is `wanted`. */
  async says(wanted: (line: ConsoleLine) => boolean): Promise<ConsoleLine> {
    let look: () => void = () => undefined;
    const said = new Promise<ConsoleLine>((resolve) => {
      look = () => {
        const line = this.#lines.find(wanted);
        if (line) resolve(line);
      };
      this.#watchers.add(look);
      look();
    });
    const last = (): string =>
      this.#lines
        .slice(-5)
        .map(({ text }) => text)
        .join('\n');
    try {
      return await within(said, WAIT_MAX_MS, () => `the guest does not say what was waited for\n${last()}`);
    } finally {
      this.#watchers.delete(look);
    }
  }

  /** Resolves when `count` records more than now, or than the first to come, are flushed. */
  async acknowledges(count: number): Promise<void> {
    const known = this.#lines.findLast(({ kind }) => kind === 'flushed');
    const first = known ?? (await this.says(({ kind }) => kind === 'flushed'));
    await this.says(({ kind, number }) => kind === 'flushed' && number >= first.number + count);
  }

  /** Has the writer flush and end; the guest switches itself off then. */
  async finish(): Promise<void> {
    writeSync(this.#input, 'q');
    await this.says(({ kind }) => kind === 'quit');
  }

  #take(text: string): void {
    const at = performance.now();
    const lines = (this.#partial + text).split('\n');
    this.#partial = lines.pop()!;
    for (const line of lines) this.#lines.push(parseConsoleLine(line.trimEnd(), at));
    for (const look of this.#watchers) look();
  }
}
