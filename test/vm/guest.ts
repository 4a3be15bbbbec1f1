/** The test guest in a real QEMU: a small Linux that writes numbered records to its disks (guest/writer.c). */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, ftruncateSync, openSync, rmSync, statfsSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { MiB } from '../../src/leaves/units.js';
import { guardProcess, releaseProcess, type Teardown } from '../support/scratch.js';
import { within } from '../support/test-daemon.js';
import { waitFor } from '../support/wait-for.js';
import { type ConsoleLine, parseConsoleLine } from './records.js';

const BUILT = fileURLToPath(new URL('../../../build/guest/', import.meta.url));
const RAM_BYTES = 128 * MiB;
const CONSOLE_WAIT_MAX_MS = 90_000;
const END_MAX_MS = 30_000;

export interface GuestDisk {
  readonly path: string;
  readonly format: 'raw' | 'qcow2';
  readonly cache: 'none' | 'writeback';
}

export interface Workload {
  /** Tells the records of this run from others. */
  readonly run: number;
  /** Records that fit a disk. */
  readonly slots: number;
  /** Records a second. */
  readonly rate: number;
  /** Records between two flushes. */
  readonly flush: number;
}

export interface GuestOptions {
  readonly disks: readonly GuestDisk[];
  readonly workload: Workload;
  readonly ram: GuestRam;
  /** Path of the UNIX socket of its monitor. */
  readonly monitor: string;
  /** Waits for a migration (`-incoming defer`) instead of booting. */
  readonly incoming?: boolean;
  /** What runs it, such as `nsenter` and its arguments. */
  readonly prefix?: readonly string[];
}

/**
 * The RAM of one guest as a file without a name that source and destination both map: QEMU 7.2 with -accel tcg loses
 * some guest stores when it sends RAM live, so only the state of the devices is sent (capability x-ignore-shared).
 */
export class GuestRam {
  readonly fd: number;

  private constructor(fd: number) {
    this.fd = fd;
  }

  /** In memory where there is room, otherwise in `folder`. */
  static create(t: Teardown, folder: string): GuestRam {
    const memory = '/dev/shm';
    const { bavail, bsize } = statfsSync(memory);
    const path = join(bavail * bsize > 2 * RAM_BYTES ? memory : folder, `migratefs-ram-${process.pid}`);
    const fd = openSync(path, 'wx+');
    rmSync(path);
    t.teardown(() => closeSync(fd));
    ftruncateSync(fd, RAM_BYTES);
    return new GuestRam(fd);
  }
}

/** Name of a disk at the monitor. */
export const nodeName = (index: number): string => `disk${index}`;

const driveOf = ({ path, format, cache }: GuestDisk, index: number): string =>
  `file=${path.replaceAll(',', ',,')},if=virtio,format=${format},cache=${cache},discard=unmap,node-name=${nodeName(index)}`;

const argumentsOf = ({ disks, workload, monitor, incoming }: GuestOptions): string[] => {
  const names = disks.map((_, index) => `/dev/vd${String.fromCharCode(97 + index)}`);
  const { run, slots, rate, flush } = workload;
  const writer = [run, slots, rate, flush, ...names].join(',');
  return [
    ...['-accel', 'tcg', '-nodefaults', '-display', 'none', '-no-reboot'],
    ...['-machine', 'pc,memory-backend=ram', '-m', `${RAM_BYTES / MiB}M`],
    // The file has no name any more; descriptor 3 is inherited.
    ...['-object', `memory-backend-file,id=ram,size=${RAM_BYTES},share=on,mem-path=/proc/self/fd/3`],
    ...['-kernel', join(BUILT, 'vmlinuz'), '-initrd', join(BUILT, 'initrd')],
    // An emulated timer on a busy machine does not tick in time for the kernel's test of it.
    ...['-append', `console=ttyS0 quiet panic=-1 no_timer_check nowatchdog writer=${writer}`],
    ...disks.flatMap((disk, index) => ['-drive', driveOf(disk, index)]),
    ...['-serial', 'stdio', '-chardev', `socket,id=monitor,path=${monitor},server=on,wait=off`],
    ...['-mon', 'chardev=monitor,mode=control'],
    ...(incoming ? ['-incoming', 'defer'] : []),
  ];
};

/** One QEMU with the guest inside, or waiting for it. */
export class Guest {
  /** Resolves when QEMU has ended. */
  readonly exited: Promise<void>;
  readonly monitor: string;
  readonly #child: ChildProcess;
  readonly #lines: ConsoleLine[] = [];
  readonly #watchers = new Set<() => void>();
  #partial = '';
  #stderr = '';
  #gone = false;

  private constructor(child: ChildProcess, monitor: string) {
    this.#child = child;
    this.monitor = monitor;
    if (child.pid !== undefined) guardProcess(child.pid);
    this.exited = new Promise((resolve) =>
      child.once('close', () => {
        this.#gone = true;
        if (child.pid !== undefined) releaseProcess(child.pid);
        for (const look of this.#watchers) look();
        resolve();
      }),
    );
    child.stdout!.setEncoding('latin1').on('data', (text: string) => this.#take(text));
    child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr += text;
    });
    child.stdin!.on('error', () => undefined);
    child.on('error', (error) => {
      this.#stderr += error.message;
    });
  }

  static start(t: Teardown, options: GuestOptions): Guest {
    const [program, ...args] = [...(options.prefix ?? []), 'qemu-system-x86_64', ...argumentsOf(options)];
    const child = spawn(program!, args, { stdio: ['pipe', 'pipe', 'pipe', options.ram.fd] });
    const guest = new Guest(child, options.monitor);
    t.teardown(() => guest.kill());
    return guest;
  }

  /** What its console said so far, with the times at which it came. */
  get lines(): readonly ConsoleLine[] {
    return this.#lines;
  }

  get pid(): number {
    return this.#child.pid!;
  }

  get running(): boolean {
    return !this.#gone;
  }

  /** Resolves when its monitor takes connections. */
  async listens(): Promise<void> {
    await waitFor(async () => {
      if (this.#gone) throw new Error(`QEMU has ended\n${this.#said()}`);
      const socket = connect(this.monitor);
      const taken = await once(socket, 'connect').catch(() => undefined);
      socket.destroy();
      return taken !== undefined;
    }, 'the monitor of QEMU');
  }

  /** Resolves with the first line of the console, said already or later, that is `wanted`. */
  async says(
    wanted: (line: ConsoleLine) => boolean,
    milliseconds = CONSOLE_WAIT_MAX_MS,
  ): Promise<ConsoleLine> {
    let seen = 0;
    let look: () => void = () => undefined;
    const said = new Promise<ConsoleLine>((resolve, reject) => {
      look = () => {
        for (; seen < this.#lines.length; seen++)
          if (wanted(this.#lines[seen]!)) return resolve(this.#lines[seen]!);
        if (this.#gone) reject(new Error(`QEMU has ended\n${this.#said()}`));
      };
      this.#watchers.add(look);
      look();
    });
    try {
      return await within(
        said,
        milliseconds,
        () => `the guest does not say what was waited for\n${this.#said()}`,
      );
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

  /** Has the writer flush and end, and the guest switch itself off. */
  async finish(): Promise<void> {
    this.#child.stdin!.write('q');
    await this.says(({ kind }) => kind === 'quit');
    await within(this.exited, END_MAX_MS, () => `the guest does not switch off\n${this.#said()}`);
  }

  /** Takes its power away. */
  async kill(): Promise<void> {
    if (!this.#gone) this.#child.kill('SIGKILL');
    await this.exited;
  }

  #take(text: string): void {
    const at = performance.now();
    const lines = (this.#partial + text).split('\n');
    this.#partial = lines.pop()!;
    for (const line of lines) this.#lines.push(parseConsoleLine(line.trimEnd(), at));
    for (const look of this.#watchers) look();
  }

  #said(): string {
    return `${this.#stderr}${this.#lines
      .slice(-20)
      .map(({ text }) => text)
      .join('\n')}`;
  }
}
