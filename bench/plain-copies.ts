/** Copies of a file over a loopback connection by programs that do nothing else: what the wire and the machine allow. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, rmSync, statSync } from 'node:fs';
import { createServer } from 'node:net';
import { fileURLToPath } from 'node:url';
import { guardProcess, releaseProcess } from '../test/support/scratch.js';
import { waitFor } from '../test/support/wait-for.js';

const SOCKET_COPY = fileURLToPath(new URL('./socket-copy-process.js', import.meta.url));
const SOCAT_BLOCK = 512 * 1024;

const started = (command: string, args: readonly string[]): ChildProcess => {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  guardProcess(child.pid!);
  child.once('exit', () => releaseProcess(child.pid!));
  return child;
};

const succeeded = async (child: ChildProcess): Promise<void> => {
  const code = child.exitCode ?? ((await once(child, 'exit')) as [number | null])[0];
  if (code !== 0) throw new Error(`${child.spawnargs.join(' ')} ended with ${code}`);
};

/** A port that was free a moment ago. */
export const freePort = async (): Promise<number> => {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
};

/** Resolves once something listens on a local port (proc_net_tcp: state 0A). */
export const listening = (port: number): Promise<void> =>
  waitFor(() => {
    const wanted = `:${port.toString(16).toUpperCase().padStart(4, '0')} `;
    return (readFileSync('/proc/net/tcp', 'utf8') + readFileSync('/proc/net/tcp6', 'utf8'))
      .split('\n')
      .some((line) => line.includes(wanted) && / 0A /.test(line));
  }, `a listener on port ${port}`);

/** Bytes per second of one copy, by what `copy` does between two existing folders; the copy is removed. */
const rated = async (source: string, target: string, copy: () => Promise<void>): Promise<number> => {
  const { size } = statSync(source);
  const began = performance.now();
  await copy();
  const seconds = (performance.now() - began) / 1000;
  if (statSync(target).size !== size) throw new Error(`${target} is not whole`);
  rmSync(target);
  return size / seconds;
};

export const socatCopy = async (source: string, target: string): Promise<number> => {
  const port = await freePort();
  const receiver = started('socat', [
    '-u',
    '-b',
    String(SOCAT_BLOCK),
    `TCP-LISTEN:${port},bind=127.0.0.1,reuseaddr`,
    `OPEN:${target},creat,trunc,wronly`,
  ]);
  await listening(port);
  return rated(source, target, async () => {
    const sender = started('socat', [
      '-u',
      '-b',
      String(SOCAT_BLOCK),
      `OPEN:${source},rdonly`,
      `TCP:127.0.0.1:${port}`,
    ]);
    await Promise.all([succeeded(sender), succeeded(receiver)]);
  });
};

export const nodeCopy = async (source: string, target: string): Promise<number> => {
  const receiver = started(process.execPath, [SOCKET_COPY, 'receive', target]);
  const [said] = (await once(receiver.stdout!, 'data')) as [Buffer];
  // The sender's start-up counts, as our migration's handshake does; it is a tenth of a second.
  return rated(source, target, async () => {
    const sender = started(process.execPath, [SOCKET_COPY, 'send', source, said.toString().trim()]);
    await Promise.all([succeeded(sender), succeeded(receiver)]);
  });
};
