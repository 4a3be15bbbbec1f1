import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { Cleanup } from '../test/support/cleanup.js';
import { type Followed, startPair } from '../test/support/pair.js';
import { measureFio } from './fio.js';
import { fillImage, scatterImage } from './image.js';
import {
  IMAGE,
  type Line,
  MB,
  type Setting,
  SYNC_MAX_MS,
  warmFor,
  whileMigrating,
} from './migrate-setting.js';
import { nodeCopy, socatCopy } from './plain-copies.js';
import { cpuSeconds } from './process-figures.js';
import { qemuAvailable, startQemuMirror } from './qemu-mirror.js';
import { median } from './statistics.js';
import { fixed } from './table.js';

/** Seconds from the call until in sync, and the CPU seconds of both daemons. */
const oneCopy = async (setting: Setting, image = IMAGE): Promise<{ seconds: number; cpu: number }> => {
  const { source, target } = setting.pair;
  await warmFor(setting, source.daemon.below(image));
  const cpuUsed = (): number => cpuSeconds(source.daemon.pid) + cpuSeconds(target.daemon.pid);
  const cpuBefore = cpuUsed();
  const began = performance.now();
  const copied = async (migration: Followed): Promise<{ seconds: number; cpu: number }> => {
    await migration.reaches('mirroring', SYNC_MAX_MS);
    return { seconds: (performance.now() - began) / 1000, cpu: cpuUsed() - cpuBefore };
  };
  return whileMigrating(setting, {}, copied, image);
};

const mirrorSeconds = async (setting: Setting, image: string): Promise<number> => {
  const cleanup = new Cleanup();
  const mirror = await startQemuMirror(cleanup, setting.folder, image, 'background');
  await warmFor(setting, image);
  const seconds = await mirror.synchronise();
  await cleanup.run();
  return seconds;
};

export const bulkLines = async (setting: Setting): Promise<readonly Line[]> => {
  const { pair, folder, options } = setting;
  const image = pair.source.daemon.below(IMAGE);
  const copy = join(folder, 'copy.raw');
  const rates: Record<string, number[]> = {};
  const add = (name: string, rate: number): void => {
    rates[name] = [...(rates[name] ?? []), rate];
  };
  const cpus: number[] = [];
  const qemu = await qemuAvailable();
  for (let round = 0; round < options.rounds; round++) {
    const ours = await oneCopy(setting);
    add('ours', options.size / ours.seconds);
    cpus.push(ours.cpu / (options.size / 1e9));
    for (const [name, plain] of Object.entries({ socat: socatCopy, node: nodeCopy })) {
      await warmFor(setting, image);
      add(name, await plain(image, copy));
    }
    if (qemu) add('qemu', options.size / (await mirrorSeconds(setting, image)));
  }
  const rate = (name: string): number => median(rates[name] ?? []);
  const line = (name: string, what: string, bar?: number): Line => ({
    what,
    value: `${fixed(rate(name) / MB, 0)} MB/s`,
    verdict: { ratio: rate('ours') / rate(name), ...(bar === undefined ? {} : { bar }) },
  });
  return [
    { what: 'bulk copy, ours', value: `${fixed(rate('ours') / MB, 0)} MB/s` },
    { what: 'bulk copy, CPU of both daemons', value: `${fixed(median(cpus), 2)} s/GB` },
    line('socat', 'plain copy, socat over TCP', 0.5),
    line('node', 'plain copy, Node streams over TCP', 0.5),
    qemu
      ? line('qemu', 'QEMU blockdev-mirror to NBD', 1)
      : { what: 'QEMU blockdev-mirror to NBD', value: 'not installed (qemu-system-common)' },
  ];
};

const SCATTERED = 'scattered.raw';
const SCATTERED_BLOCKS = 8192;
const SCATTERED_GAP = 65_536;

/** What a resend is made of where guests write at random: blocks that each stand alone. */
export const scatteredLines = async (setting: Setting): Promise<readonly Line[]> => {
  const { pair, options } = setting;
  const image = pair.source.daemon.below(SCATTERED);
  await scatterImage(image, SCATTERED_BLOCKS, SCATTERED_GAP);
  const ours: { seconds: number; cpu: number }[] = [];
  const qemu: number[] = [];
  const hasQemu = await qemuAvailable();
  for (let round = 0; round < options.rounds; round++) {
    ours.push(await oneCopy(setting, SCATTERED));
    if (hasQemu) qemu.push(await mirrorSeconds(setting, image));
  }
  rmSync(image);
  const seconds = median(ours.map((copy) => copy.seconds));
  const each = (total: number): string => `${fixed((total / SCATTERED_BLOCKS) * 1e6, 1)} us each`;
  return [
    { what: `${SCATTERED_BLOCKS} blocks of 4 KiB, one in 64 KiB, ours`, value: `${fixed(seconds, 2)} s` },
    { what: 'of these, CPU of both daemons', value: each(median(ours.map(({ cpu }) => cpu))) },
    hasQemu
      ? {
          what: 'of these, QEMU blockdev-mirror to NBD',
          value: `${fixed(median(qemu), 2)} s`,
          verdict: { ratio: median(qemu) / seconds, bar: 1 },
        }
      : { what: 'of these, QEMU blockdev-mirror to NBD', value: 'not installed (qemu-system-common)' },
  ];
};

/** The load of the resent row: 4 KiB writes a second, and the network they race against. */
const WRITES_PER_SECOND = 400;
const RESENT_NET_LIMIT = 60 * MB;
const RESENT_IMAGE_BYTES = 512 * 2 ** 20;

/** Bytes sent more than once under a steady random load with blocks of `blockSize`; null: the daemon has one size only. */
const resentBytes = async ({ folder, options }: Setting, blockSize: string): Promise<number | null> => {
  const cleanup = new Cleanup();
  try {
    const side = (name: string): { imageDir: string; mountpoint: string; extraArgs: readonly string[] } => ({
      imageDir: join(folder, blockSize, name, 'images'),
      mountpoint: join(folder, blockSize, name, 'mount'),
      extraArgs: [`--block-size=${blockSize}`],
    });
    const pair = await startPair(cleanup, { source: side('source'), target: side('target') }).catch(
      () => null,
    );
    if (!pair) return null;
    await fillImage(pair.source.daemon.below(IMAGE), RESENT_IMAGE_BYTES);
    const setting = { pair, folder, options };
    return await whileMigrating(setting, { netLimit: RESENT_NET_LIMIT }, async (migration) => {
      const stop = new AbortController();
      const load = measureFio(
        {
          file: pair.source.daemon.at(IMAGE),
          rw: 'randwrite',
          block: 4096,
          jobs: 1,
          span: RESENT_IMAGE_BYTES,
          direct: true,
          engine: 'psync',
          depth: 1,
          seconds: SYNC_MAX_MS / 1000,
          loop: true,
          extra: { rate_iops: WRITES_PER_SECOND },
        },
        stop.signal,
      ).catch(() => undefined);
      const { bytesResent } = await migration.reaches('mirroring', SYNC_MAX_MS);
      stop.abort();
      await load;
      return bytesResent;
    });
  } finally {
    await cleanup.run();
  }
};

export const resentLines = async (setting: Setting): Promise<readonly Line[]> => {
  const fine = await resentBytes(setting, '64KiB');
  const coarse = await resentBytes(setting, '512KiB');
  const what = `resent under ${WRITES_PER_SECOND} random 4k writes/s, 64 KiB blocks against 512 KiB`;
  if (fine === null || coarse === null) return [{ what, value: 'not measured: mount has no --block-size' }];
  return [
    {
      what,
      value: `${fixed(fine / MB, 0)} MB against ${fixed(coarse / MB, 0)} MB`,
      verdict: { ratio: fine / coarse, bar: 0.25, sense: 'at-most' },
    },
  ];
};
