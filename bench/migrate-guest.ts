/** What a guest notices of its own migration, of another's, and of the cutover. */
import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { Cleanup } from '../test/support/cleanup.js';
import { rewriteBlock } from '../test/support/cutover.js';
import { migrate, startPair } from '../test/support/pair.js';
import { removeTree, scratchDir } from '../test/support/scratch.js';
import { type FioFigures, measureFio } from './fio.js';
import { fillImage } from './image.js';
import {
  IMAGE,
  type Line,
  type MigrateBenchOptions,
  type Setting,
  SYNC_MAX_MS,
  warmFor,
  whileMigrating,
} from './migrate-setting.js';
import { qemuAvailable, startQemuMirror } from './qemu-mirror.js';
import { median } from './statistics.js';
import { fixed, type Verdict } from './table.js';

const OTHER = 'other.raw';
const OTHER_BYTES = 256 * 2 ** 20;

/** 4 KiB writes at queue depth 1; `synced`: with an fsync after each. */
const guestWrites = (
  file: string,
  options: MigrateBenchOptions,
  how: { readonly synced?: boolean; readonly engine?: 'psync' | 'nbd' } = {},
): Promise<FioFigures> =>
  measureFio({
    file,
    rw: 'randwrite',
    block: 4096,
    jobs: 1,
    span: options.size,
    direct: !how.synced,
    engine: how.engine ?? 'psync',
    depth: 1,
    seconds: options.seconds,
    loop: true,
    ...(how.synced ? { extra: { fsync: 1 } } : {}),
  });

const middle = (list: readonly FioFigures[], key: 'iops' | 'p50' | 'p99'): number =>
  median(list.map((figures) => figures[key]));

const shown = (list: readonly FioFigures[]): string =>
  `${fixed(middle(list, 'iops'), 0)} IOPS, p50 ${fixed(middle(list, 'p50'), 0)} us, p99 ${fixed(middle(list, 'p99'), 0)} us`;

interface GuestFigures {
  readonly idle: readonly FioFigures[];
  readonly copying: readonly FioFigures[];
  readonly inSync: readonly FioFigures[];
  /** In which states the measurements during the copy ended. */
  readonly copyEnded: string;
}

/** The guest's writes before a migration, while it copies, and in sync. */
const guestFigures = async (setting: Setting, synced: boolean): Promise<GuestFigures> => {
  const { pair, options } = setting;
  const write = (): Promise<FioFigures> => guestWrites(pair.source.daemon.at(IMAGE), options, { synced });
  const idle: FioFigures[] = [];
  const copying: FioFigures[] = [];
  const inSync: FioFigures[] = [];
  const ended = new Set<string>();
  for (let round = 0; round < options.rounds; round++) {
    idle.push(await write());
    await warmFor(setting, pair.source.daemon.below(IMAGE));
    await whileMigrating(setting, {}, async (migration) => {
      copying.push(await write());
      ended.add(migration.last.state);
      await migration.reaches('mirroring', SYNC_MAX_MS);
      inSync.push(await write());
    });
  }
  return { idle, copying, inSync, copyEnded: [...ended].join(', ') };
};

/** QEMU's guest before and in a write-blocking mirror. */
const qemuFigures = async (
  { pair, folder, options }: Setting,
  synced: boolean,
): Promise<{ idle: readonly FioFigures[]; inSync: readonly FioFigures[] } | null> => {
  if (!(await qemuAvailable())) return null;
  const cleanup = new Cleanup();
  const qemu = await startQemuMirror(cleanup, folder, pair.source.daemon.below(IMAGE), 'write-blocking');
  const measure = async (): Promise<readonly FioFigures[]> => {
    const list: FioFigures[] = [];
    for (let round = 0; round < options.rounds; round++)
      list.push(await guestWrites(qemu.uri, options, { synced, engine: 'nbd' }));
    return list;
  };
  const idle = await measure();
  await qemu.synchronise();
  const inSync = await measure();
  await cleanup.run();
  return { idle, inSync };
};

const linesOf = async (setting: Setting, synced: boolean): Promise<readonly Line[]> => {
  const { idle, copying, inSync, copyEnded } = await guestFigures(setting, synced);
  const qemu = await qemuFigures(setting, synced);
  const kind = synced ? 'guest 4k write + fsync' : 'guest 4k write QD1';
  const ofIdle = (list: readonly FioFigures[], bar: number): Verdict => ({
    ratio: middle(list, 'iops') / middle(idle, 'iops'),
    ...(synced ? { bar } : {}),
  });
  return [
    { what: `${kind}, idle`, value: shown(idle) },
    {
      what: `${kind}, copying (ended in ${copyEnded}), of idle`,
      value: shown(copying),
      verdict: ofIdle(copying, 0.8),
    },
    { what: `${kind}, in sync, of idle`, value: shown(inSync), verdict: ofIdle(inSync, 0.5) },
    ...(qemu
      ? [
          { what: `QEMU's ${kind}, idle (over NBD, no FUSE)`, value: shown(qemu.idle) },
          {
            what: `QEMU's ${kind}, write-blocking mirror, of its idle`,
            value: shown(qemu.inSync),
            verdict: { ratio: middle(qemu.inSync, 'iops') / middle(qemu.idle, 'iops') },
          },
          {
            what: `${kind}, in sync: our ${synced ? 'rate' : 'median latency'} of QEMU's`,
            value: '',
            verdict: {
              ratio: middle(inSync, synced ? 'iops' : 'p50') / middle(qemu.inSync, synced ? 'iops' : 'p50'),
              ...(synced ? {} : { bar: 1, sense: 'at-most' as const }),
            },
          },
        ]
      : []),
  ];
};

/** Without fsync, images in memory: the latency that mirroring adds. */
export const guestLines = (setting: Setting): Promise<readonly Line[]> => linesOf(setting, false);

/** With fsync, images on a disk: what a database in the guest sees. */
export const durableLines = async ({ options }: Setting): Promise<readonly Line[]> => {
  const cleanup = new Cleanup();
  try {
    const folder = scratchDir(cleanup, 'bench');
    const pair = await startPair(cleanup);
    await fillImage(pair.source.daemon.below(IMAGE), options.size);
    return await linesOf({ pair, folder, options }, true);
  } finally {
    await cleanup.run();
  }
};

/** The same during the copy, the target's images in memory: two hosts do not write to one disk. */
export const ownDiskLines = async ({ options }: Setting): Promise<readonly Line[]> => {
  const cleanup = new Cleanup();
  try {
    const folder = mkdtempSync(join(options.dir, 'mfs-target-'));
    cleanup.teardown(() => removeTree(folder));
    const target = { imageDir: join(folder, 'images'), mountpoint: join(folder, 'mount') };
    const pair = await startPair(cleanup, { target });
    await fillImage(pair.source.daemon.below(IMAGE), options.size);
    const { idle, copying, inSync, copyEnded } = await guestFigures({ pair, folder, options }, true);
    const what = 'guest 4k write + fsync, target in memory';
    const row = (when: string, list: readonly FioFigures[], bar?: number): Line => ({
      what: `${what}, ${when}`,
      value: shown(list),
      ...(bar && { verdict: { ratio: middle(list, 'iops') / middle(idle, 'iops'), bar } }),
    });
    return [
      row('idle', idle),
      row(`copying (ended in ${copyEnded}), of idle`, copying, 0.8),
      row('in sync, of idle', inSync, 0.5),
    ];
  } finally {
    await cleanup.run();
  }
};

/** Another image's I/O while one migrates on a throttled network under a throttled guest. */
export const isolationLines = async (setting: Setting): Promise<readonly Line[]> => {
  const { pair, options } = setting;
  await fillImage(pair.source.daemon.below(OTHER), OTHER_BYTES);
  const measure = (rw: 'randread' | 'randwrite'): Promise<FioFigures> =>
    measureFio({
      file: pair.source.daemon.at(OTHER),
      rw,
      block: 4096,
      jobs: 1,
      span: OTHER_BYTES,
      direct: true,
      engine: 'psync',
      depth: 1,
      seconds: options.seconds,
      loop: true,
    });
  const ratios: Record<'randread' | 'randwrite', number[]> = { randread: [], randwrite: [] };
  for (let round = 0; round < options.rounds; round++)
    for (const rw of ['randread', 'randwrite'] as const) {
      const idle = await measure(rw);
      await whileMigrating(setting, { netLimit: 1000, diskLimit: 1000 }, async () => {
        const stop = new AbortController();
        // Four jobs of the other guest are held back all the time; its file is closed when they are let go.
        const held = measureFio(
          {
            file: pair.source.daemon.at(IMAGE),
            rw: 'randwrite',
            block: 65_536,
            jobs: 4,
            span: options.size,
            direct: true,
            engine: 'psync',
            depth: 1,
            seconds: options.seconds,
            loop: true,
          },
          stop.signal,
        ).catch(() => undefined);
        ratios[rw].push((await measure(rw)).iops / idle.iops);
        stop.abort();
        void held;
      });
    }
  rmSync(pair.source.daemon.below(OTHER));
  return (['randread', 'randwrite'] as const).map((rw) => ({
    what: `another image's 4k ${rw} while one migrates, throttled (of idle)`,
    value: '',
    verdict: { ratio: median(ratios[rw]), bar: 0.8 },
  }));
};

/** The first write on the target, and what the daemons hold in memory afterwards. */
export const cutoverLines = async ({ pair, options }: Setting): Promise<readonly Line[]> => {
  const name = 'small.raw';
  const stalls: number[] = [];
  for (let round = 0; round < options.rounds; round++) {
    const cleanup = new Cleanup();
    await fillImage(pair.source.daemon.below(name), 64 * 2 ** 20);
    const migration = await migrate(cleanup, pair, [name], { cutover: 'on-first-write' });
    await migration.reaches('mirroring', SYNC_MAX_MS);
    stalls.push(await rewriteBlock(pair.source.daemon.below(name), pair.target.daemon.at(name), 0));
    await migration.reaches('completed');
    await cleanup.run();
    for (const { daemon } of [pair.source, pair.target]) rmSync(daemon.at(name));
  }
  return [
    {
      what: 'stall of the first write on the target, worst, ms',
      value: `p50 ${fixed(median(stalls), 1)} ms`,
      verdict: { ratio: Math.max(...stalls), bar: 100, sense: 'at-most' },
    },
  ];
};
