import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { CLI, run } from '../test/support/run.js';
import { guardProcess, mountsBelow, releaseProcess } from '../test/support/scratch.js';
import { prepareQemuExport, type QemuExport, qemuExportAvailable } from './qemu-export.js';

const MOUNT_WAIT_MILLIS = 20_000;
const POLL_MILLIS = 50;
const STOP_GRACE_MILLIS = 5_000;

/** The image that all rows use, and a second one where two are needed. */
export const IMAGE = 'image.raw';
export const OTHER_IMAGE = 'other.raw';
export const OTHER_BYTES = 256 * 2 ** 20;

export const CONTENDERS = [
  'migratefs',
  'bare',
  'bindfs',
  'passthrough_hp',
  'qemu-export',
  'fuse-native',
] as const;

export type ContenderName = (typeof CONTENDERS)[number];

/** A directory of images seen through one file system. */
export interface RunningContender {
  readonly name: ContenderName;
  /** Where files can be made; null: the contender serves one image and nothing else. */
  readonly folder: string | null;
  /** The serving process; null: there is none. */
  readonly pid: number | null;
  /** The path at which an image is used; `direct`: with O_DIRECT. */
  image(name: string, direct: boolean): string;
  stop(): Promise<void>;
}

export interface ContenderOptions {
  readonly workers?: number;
  /** Path of libfuse's example program. */
  readonly passthroughHp?: string;
}

type Command = readonly [string, readonly string[]];
type MountingName = Exclude<ContenderName, 'bare' | 'qemu-export'>;

const commandOf = (
  name: MountingName,
  imageDir: string,
  mountpoint: string,
  options: ContenderOptions,
): Command => {
  const ours = (transport: string): Command => [
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

/** Why this contender cannot run here; null: it can. A missing one leaves its column out. */
export const missing = async (name: ContenderName, options: ContenderOptions): Promise<string | null> => {
  switch (name) {
    case 'bare':
    case 'migratefs':
    case 'fuse-native':
      return null;
    case 'bindfs':
      return (await run('sh', ['-c', 'command -v bindfs'])).code === 0 ? null : 'it is not installed';
    case 'passthrough_hp':
      if (options.passthroughHp === undefined) return 'no --passthrough-hp PATH was given';
      return existsSync(options.passthroughHp) ? null : `there is no ${options.passthroughHp}`;
    case 'qemu-export':
      return (await qemuExportAvailable()) ? null : 'there is no qemu-storage-daemon with FUSE exports';
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

/** Asks the kernel's table and not the mount, whose server may be dead. */
const isMounted = (point: string): boolean => mountsBelow(point).includes(point);

/** Runs a program until all of `points` are mounted; `stop` ends it and leaves none of them. */
const mounted = async (
  name: ContenderName,
  [command, args]: Command,
  points: readonly string[],
): Promise<{ readonly pid: number; stop(): Promise<void> }> => {
  const child = spawn(command, args, { stdio: ['ignore', 'ignore', 'pipe'] });
  let failure: Error | null = null;
  child.on('error', (error) => {
    failure = error;
  });
  const { pid } = child;
  if (pid !== undefined) guardProcess(pid);
  let said = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said = (said + text).slice(-2000);
  });
  const stop = async (): Promise<void> => {
    if (pid !== undefined) {
      await endOf(child);
      releaseProcess(pid);
    }
    for (const point of points) if (isMounted(point)) await run('umount', ['-l', point]);
  };
  const deadline = performance.now() + MOUNT_WAIT_MILLIS;
  while (pid === undefined || !points.every(isMounted)) {
    const ended = failure !== null || child.exitCode !== null || child.signalCode !== null;
    if (ended || performance.now() > deadline) {
      await stop();
      const reason = said.trim() || (failure as Error | null)?.message || 'no reason given';
      throw new Error(`${name} did not mount: ${reason}`);
    }
    await sleep(POLL_MILLIS);
  }
  return { pid, stop };
};

/** Makes the images of `imageDir` visible below `mountpoint`, a folder that it makes. */
export const startContender = async (
  name: ContenderName,
  imageDir: string,
  mountpoint: string,
  options: ContenderOptions,
): Promise<RunningContender> => {
  if (name === 'bare')
    return {
      name,
      folder: imageDir,
      pid: null,
      image: (image) => join(imageDir, image),
      stop: async () => undefined,
    };
  mkdirSync(mountpoint);
  if (name === 'qemu-export') {
    const qemu: QemuExport = prepareQemuExport(join(imageDir, IMAGE), mountpoint);
    const process = await mounted(name, qemu.command, [qemu.cached, qemu.direct]);
    return {
      name,
      folder: null,
      ...process,
      image: (image, direct) => {
        if (image !== IMAGE) throw new Error(`${name} serves ${IMAGE} only`);
        return direct ? qemu.direct : qemu.cached;
      },
    };
  }
  const process = await mounted(name, commandOf(name, imageDir, mountpoint, options), [mountpoint]);
  return { name, folder: mountpoint, ...process, image: (image) => join(mountpoint, image) };
};
