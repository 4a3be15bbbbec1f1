/** QEMU's way to do the same: `blockdev-mirror` of a storage daemon to an NBD server (QEMU QMP reference, block jobs). */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, existsSync, ftruncateSync, openSync, rmSync, statSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { run } from '../test/support/run.js';
import { guardProcess, releaseProcess, type Teardown } from '../test/support/scratch.js';
import { waitFor } from '../test/support/wait-for.js';
import { freePort, listening } from './plain-copies.js';

const READY_MAX_MS = 120_000;

interface QmpMessage {
  readonly return?: unknown;
  readonly error?: { readonly desc: string };
  readonly event?: string;
}

/** The monitor of one storage daemon. */
class Qmp {
  readonly #socket: Socket;
  readonly #answers: ((message: QmpMessage) => void)[] = [];
  readonly #events = new Set<string>();

  constructor(path: string) {
    this.#socket = connect(path);
    this.#socket.on('error', () => undefined);
    createInterface({ input: this.#socket }).on('line', (line) => {
      const message = JSON.parse(line) as QmpMessage;
      if (message.event) this.#events.add(message.event);
      else if ('return' in message || message.error) this.#answers.shift()?.(message);
    });
  }

  async call(execute: string, args: object = {}): Promise<void> {
    const answer = new Promise<QmpMessage>((resolve) => this.#answers.push(resolve));
    this.#socket.write(`${JSON.stringify({ execute, arguments: args })}\n`);
    const { error } = await answer;
    if (error) throw new Error(`QEMU ${execute}: ${error.desc}`);
  }

  event(name: string): Promise<void> {
    return waitFor(() => this.#events.has(name), `QEMU event ${name}`, READY_MAX_MS);
  }
}

export const qemuAvailable = async (): Promise<boolean> =>
  (await run('sh', ['-c', 'command -v qemu-storage-daemon && command -v qemu-nbd'])).code === 0;

export interface QemuMirror {
  /** Where a guest can write to the source: the URI of an NBD export on a Unix socket. */
  readonly uri: string;
  /** Starts the mirror and resolves with the seconds it took to be in sync. */
  synchronise(): Promise<number>;
}

/** A storage daemon that exports `image` and can mirror it to an NBD server; its files are made in `folder`. */
export const startQemuMirror = async (
  t: Teardown,
  folder: string,
  image: string,
  copyMode: 'background' | 'write-blocking',
): Promise<QemuMirror> => {
  const children: ChildProcess[] = [];
  const start = (command: string, args: readonly string[]): void => {
    const child = spawn(command, args, { stdio: ['ignore', 'ignore', 'inherit'] });
    guardProcess(child.pid!);
    children.push(child);
  };
  const target = join(folder, 'qemu-target.raw');
  const socket = join(folder, 'qemu-export');
  const monitor = join(folder, 'qemu-monitor');
  t.teardown(async () => {
    for (const child of children.reverse()) {
      child.kill('SIGKILL');
      await waitFor(() => child.exitCode !== null || child.signalCode !== null, 'QEMU ends');
      releaseProcess(child.pid!);
    }
    for (const file of [target, socket, monitor]) rmSync(file, { force: true });
  });
  const fd = openSync(target, 'w');
  ftruncateSync(fd, statSync(image).size);
  closeSync(fd);
  const port = await freePort();
  start('qemu-nbd', ['-f', 'raw', '-x', 'target', '-b', '127.0.0.1', '-p', String(port), '-t', target]);
  await listening(port);
  start('qemu-storage-daemon', [
    '--blockdev',
    `driver=file,node-name=source,filename=${image},discard=unmap`,
    '--blockdev',
    `driver=nbd,node-name=target,server.type=inet,server.host=127.0.0.1,server.port=${port},export=target`,
    '--nbd-server',
    `addr.type=unix,addr.path=${socket}`,
    '--export',
    'type=nbd,id=export,node-name=source,name=source,writable=on',
    '--chardev',
    `socket,id=monitor,path=${monitor},server=on,wait=off`,
    '--monitor',
    'chardev=monitor',
  ]);
  await waitFor(() => existsSync(monitor) && existsSync(socket), 'the QEMU storage daemon');
  const qmp = new Qmp(monitor);
  await qmp.call('qmp_capabilities');
  return {
    uri: `nbd+unix:///source?socket=${socket}`,
    synchronise: async () => {
      const began = performance.now();
      await qmp.call('blockdev-mirror', {
        'job-id': 'mirror',
        device: 'source',
        target: 'target',
        sync: 'full',
        'copy-mode': copyMode,
      });
      await qmp.event('BLOCK_JOB_READY');
      return (performance.now() - began) / 1000;
    },
  };
};
