import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, statSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { CLI, run } from '../test/support/run.js';
import { guardProcess, releaseProcess } from '../test/support/scratch.js';

const MOUNT_WAIT_MILLIS = 20_000;
const POLL_MILLIS = 50;
const STOP_GRACE_MILLIS = 5_000;

export type ContenderName = 'migratefs' | 'bindfs' | 'fuse-native' | 'passthrough_hp' | 'bare';

/** A directory seen through one file system. */
export interface RunningContender {
  readonly name: ContenderName;
  readonly path: string;
  /** The serving process; null: there is none. */
  readonly pid: number | null;
  stop(): Promise<void>;
}

export interface ContenderOptions {
  readonly workers?: number;
  /** Path of libfuse's example program. */
  readonly passthroughHp?: string;
}

const commandOf = (
  name: Exclude<ContenderName, 'bare'>,
  imageDir: string,
  mountpoint: string,
  options: ContenderOptions,
): readonly [string, readonly string[]] => {
  const ours = (transport: string): readonly [string, readonly string[]] => [
    process.execPath,
    [
      CLI,
      'mount',
      imageDir,
      mountpoint,
      '--listen',
      '127.0.0.1:0',
      '--data',
      '127.0.0.1:0',
      '--transport',
      transport,
      ...(options.workers ? ['--workers', String(options.workers)] : []),
    ],
  ];
  switch (name) {
    case 'migratefs':
      return ours('kernel');
    case 'fuse-native':
      return ours('fuse-native');
    case 'bindfs':
      return ['bindfs', ['-f', '-o', 'big_writes', imageDir, mountpoint]];
    case 'passthrough_hp':
      return [
        options.passthroughHp ?? 'passthrough_hp',
        ['--nopassthrough', '--foreground', imageDir, mountpoint],
      ];
    default:
      throw name satisfies never;
  }
};

/** Whether this contender can run here; a missing one leaves its column out. */
export const available = async (name: ContenderName, options: ContenderOptions): Promise<boolean> => {
  switch (name) {
    case 'bare':
    case 'migratefs':
    case 'fuse-native':
      return true;
    case 'bindfs':
      return (await run('sh', ['-c', 'command -v bindfs'])).code === 0;
    case 'passthrough_hp':
      return options.passthroughHp !== undefined && existsSync(options.passthroughHp);
    default:
      throw name satisfies never;
  }
};

/** Asks a child to end; SIGKILL when it has not within the grace. */
const endOf = async (child: ChildProcess): Promise<void> => {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = once(child, 'exit');
  child.kill('SIGTERM');
  const timer = setTimeout(() => child.kill('SIGKILL'), STOP_GRACE_MILLIS);
  await exited;
  clearTimeout(timer);
};

/** Mounts `imageDir` at `mountpoint` (made by the caller) and resolves once the kernel shows it. */
export const startContender = async (
  name: ContenderName,
  imageDir: string,
  mountpoint: string,
  options: ContenderOptions,
): Promise<RunningContender> => {
  if (name === 'bare') return { name, path: imageDir, pid: null, stop: async () => undefined };
  const before = statSync(mountpoint).dev;
  const [command, args] = commandOf(name, imageDir, mountpoint, options);
  const child = spawn(command, args, { stdio: ['ignore', 'ignore', 'pipe'] });
  guardProcess(child.pid!);
  let said = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said = (said + text).slice(-2000);
  });
  const stop = async (): Promise<void> => {
    await endOf(child);
    releaseProcess(child.pid!);
    if (statSync(mountpoint, { throwIfNoEntry: false })?.dev !== before)
      await run('umount', ['-l', mountpoint]);
  };
  const deadline = Date.now() + MOUNT_WAIT_MILLIS;
  while (statSync(mountpoint).dev === before) {
    if (child.exitCode !== null || child.signalCode !== null || Date.now() > deadline) {
      await stop();
      throw new Error(`${name} did not mount: ${said.trim() || 'no reason given'}`);
    }
    await sleep(POLL_MILLIS);
  }
  return { name, path: mountpoint, pid: child.pid!, stop };
};
