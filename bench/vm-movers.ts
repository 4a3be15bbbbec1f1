/** Three ways to move a running guest and its disk from host `a` to host `b`. */
import { truncateSync, writeFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { Monitor } from '../src/broker/hypervisor/monitor.js';
import { systemClock } from '../src/leaves/clock.js';
import { millis } from '../src/leaves/units.js';
import { migrate } from '../test/support/pair.js';
import type { Teardown } from '../test/support/scratch.js';
import type { BedHost, TestBed } from '../test/support/test-bed.js';
import { waitFor } from '../test/support/wait-for.js';
import { nodeName } from '../test/vm/guest.js';
import { driverOf, jobOf, MOVE_MAX } from '../test/vm/live-migration.js';

export const MOVERS = ['migratefs', 'blockdev-mirror', 'shared'] as const;
export type MoverName = (typeof MOVERS)[number];

const SYNC_MAX_MS = 300_000;
const MIGRATION_PORT = 7099;
const NBD_PORT = 10_809;
const ANSWER_MAX = millis(30_000);

/** Where the two QEMUs find the disk and listen, and how the guest gets from one to the other. */
export interface Mover {
  /** Path that the QEMU on the source uses, and the file behind it. */
  readonly source: string;
  readonly sourceFile: string;
  /** The same on the target. */
  readonly target: string;
  readonly targetFile: string;
  /** Whether the QEMU on the target has to be there before the copy. */
  readonly targetFirst: boolean;
  /** Resolves when both sides are in sync. */
  copy(): Promise<void>;
  /** Moves the VM; resolves with QEMU's own downtime in milliseconds once it runs on the target. */
  handOver(): Promise<number>;
  /** Resolves when nothing of the move is left to do. */
  settled(): Promise<void>;
}

export interface MoverSetting {
  readonly bed: TestBed;
  /** For images and monitors, of this move alone. */
  readonly folder: string;
  /** Bytes of the disk. */
  readonly size: number;
  /** For our daemons. */
  readonly daemonArgs: readonly string[];
}

export const monitorPath = (folder: string, side: 'source' | 'target'): string => join(folder, `qmp-${side}`);

const IMAGE = 'vm/disk.raw';
const nothing = async (): Promise<void> => undefined;

/** QEMU's migration of everything but the disks. */
const handOver = async (
  folder: string,
  target: BedHost,
  images: readonly string[],
  id: string,
): Promise<number> => {
  let downtime = Number.NaN;
  const [from, to] = (['source', 'target'] as const).map((side) => `unix:${monitorPath(folder, side)}`);
  const driver = driverOf(
    from!,
    to!,
    `tcp:${target.address}:${MIGRATION_PORT}`,
    (_level, _message, fields) => {
      downtime = Number((fields as { readonly downtime?: number }).downtime ?? downtime);
    },
  );
  await driver.move(jobOf(images, id), AbortSignal.timeout(MOVE_MAX));
  return downtime;
};

const migratefs = async (t: Teardown, { bed, folder, daemonArgs }: MoverSetting): Promise<Mover> => {
  const start = (name: string) =>
    bed.host(name).startDaemon(t, {
      imageDir: join(folder, name, 'images'),
      mountpoint: join(folder, name, 'mount'),
      extraArgs: daemonArgs,
    });
  const [source, target] = await Promise.all([start('a'), start('b')]);
  for (const { daemon } of [source, target]) await mkdir(daemon.below('vm'));
  let followed: Awaited<ReturnType<typeof migrate>>;
  return {
    source: source.daemon.at(IMAGE),
    sourceFile: source.daemon.below(IMAGE),
    target: target.daemon.at(IMAGE),
    targetFile: target.daemon.below(IMAGE),
    targetFirst: false,
    copy: async () => {
      followed = await migrate(t, { source, target }, [IMAGE]);
      await followed.reaches('mirroring', SYNC_MAX_MS);
    },
    handOver: () => handOver(folder, bed.host('b'), [IMAGE], followed.id),
    settled: async () => void (await followed.reaches('completed')),
  };
};

const shared = async (_t: Teardown, { bed, folder }: MoverSetting): Promise<Mover> => {
  const path = join(folder, 'disk.raw');
  return {
    ...{ source: path, sourceFile: path, target: path, targetFile: path },
    targetFirst: false,
    copy: nothing,
    handOver: () => handOver(folder, bed.host('b'), [], 'none'),
    settled: nothing,
  };
};

interface BlockJob {
  readonly device: string;
  readonly ready: boolean;
}

/**
 * As libvirt does it (QEMU documentation, "Live Block Device Operations", "Live disk synchronization"): the target's QEMU
 * exports its empty disk, the source's mirrors to it with write-blocking copies, and when the guest is stopped and before
 * the target takes it, the mirror is completed.
 */
const blockdevMirror = async (t: Teardown, { bed, folder, size }: MoverSetting): Promise<Mover> => {
  const target = bed.host('b');
  const [sourcePath, targetPath] = ['source.raw', 'target.raw'].map((name) => join(folder, name));
  writeFileSync(targetPath!, '');
  truncateSync(targetPath!, size);
  const monitor = async (side: 'source' | 'target'): Promise<Monitor> => {
    const opened = await Monitor.open(`unix:${monitorPath(folder, side)}`, `QEMU on the ${side}`, {
      clock: systemClock,
      answerMax: ANSWER_MAX,
    });
    t.teardown(() => opened[Symbol.dispose]());
    return opened;
  };
  let [from, to]: [Monitor?, Monitor?] = [];
  const jobs = async (): Promise<readonly BlockJob[]> => (await from!.call('query-block-jobs')) as BlockJob[];
  const address = { type: 'inet', data: { host: target.address, port: String(NBD_PORT) } };
  const disk = nodeName(0);
  const statusOf = async (): Promise<string> => (await from!.migration()).status ?? 'none';
  return {
    ...{ source: sourcePath!, sourceFile: sourcePath!, target: targetPath!, targetFile: targetPath! },
    targetFirst: true,
    copy: async () => {
      [from, to] = [await monitor('source'), await monitor('target')];
      await to.call('nbd-server-start', { addr: address });
      await to.call('block-export-add', {
        ...{ type: 'nbd', id: 'export', 'node-name': disk, name: disk, writable: true },
      });
      const server = { type: 'inet', ...address.data };
      await from.call('blockdev-add', { driver: 'nbd', 'node-name': 'mirror-target', server, export: disk });
      await from.call('blockdev-mirror', {
        ...{ 'job-id': 'mirror', device: disk, target: 'mirror-target', sync: 'full' },
        'copy-mode': 'write-blocking',
      });
      await waitFor(
        async () => (await jobs()).some(({ ready }) => ready),
        'the mirror is in sync',
        SYNC_MAX_MS,
      );
    },
    handOver: async () => {
      for (const each of [from!, to!])
        await each.setCapabilities(['return-path', 'x-ignore-shared', 'pause-before-switchover']);
      const uri = `tcp:${target.address}:${MIGRATION_PORT}`;
      await to!.call('migrate-incoming', { uri });
      await from!.call('migrate', { uri });
      // The guest stands still from here: whoever waits for events would not be later than this.
      const late = AbortSignal.timeout(MOVE_MAX);
      for (let status = await statusOf(); status !== 'pre-switchover'; status = await statusOf()) {
        late.throwIfAborted();
        if (status === 'failed') throw new Error('QEMU gave the migration up');
      }
      await from!.call('block-job-cancel', { device: 'mirror' });
      while ((await jobs()).length > 0) late.throwIfAborted();
      await from!.call('migrate-continue', { state: 'pre-switchover' });
      await waitFor(async () => (await to!.runState()) === 'running', 'the VM runs on the target');
      const { downtime } = await from!.migration();
      return downtime ?? Number.NaN;
    },
    settled: async () => {
      await to!.call('nbd-server-stop');
      await from!.quit();
      for (const each of [from!, to!]) each[Symbol.dispose]();
    },
  };
};

const MAKERS = { migratefs, shared, 'blockdev-mirror': blockdevMirror };

export const makeMover = (t: Teardown, name: MoverName, setting: MoverSetting): Promise<Mover> =>
  MAKERS[name](t, setting);
