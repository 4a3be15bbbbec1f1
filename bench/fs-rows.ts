import type { ContenderName } from './contender.js';
import type { FioJob } from './fio.js';

const KIB = 1024;
const MIB = 1024 * KIB;

/** One line of the comparison and the bars it has to reach (DESIGN 7): ratio of ours to the peer, at least. */
export interface FsRow {
  readonly name: string;
  readonly job: Omit<FioJob, 'file' | 'span' | 'seconds'>;
  readonly metric: 'iops' | 'bytesPerSecond';
  readonly bars: Partial<Record<ContenderName, number>>;
}

const CACHINGS = [
  { name: 'direct', direct: true },
  { name: 'buffered', direct: false },
] as const;

/**
 * The two ways to read differ in who answers: an image opened for reading only (a base image) may be read by the
 * kernel alone, one opened for both (a VM's disk) is read through the daemon.
 */
const SMALL_ACCESSES = [
  { name: 'randread (O_RDONLY)', rw: 'randread' },
  { name: 'randread (O_RDWR)', rw: 'randrw', readShare: 100 },
  { name: 'randwrite', rw: 'randwrite' },
] as const;

const smallRows: readonly FsRow[] = CACHINGS.flatMap((caching) =>
  SMALL_ACCESSES.flatMap(({ name, ...access }) =>
    [1, 8].map((jobs) => ({
      name: `4k ${name} ${jobs === 1 ? 'QD1' : `${jobs} jobs`} ${caching.name}`,
      job: {
        ...access,
        block: 4 * KIB,
        jobs,
        direct: caching.direct,
        engine: 'psync' as const,
        depth: 1,
        loop: caching.direct,
      },
      metric: 'iops' as const,
      bars: { passthrough_hp: 1, bindfs: 1.2, 'fuse-native': 3 },
    })),
  ),
);

const queuedRows: readonly FsRow[] = SMALL_ACCESSES.map(({ name, ...access }) => ({
  name: `4k ${name} libaio QD16 direct`,
  job: { ...access, block: 4 * KIB, jobs: 1, direct: true, engine: 'libaio' as const, depth: 16, loop: true },
  metric: 'iops' as const,
  bars: {},
}));

const mixedRows: readonly FsRow[] = CACHINGS.map(({ name, direct }) => ({
  name: `4k randrw 70/30 8 jobs ${name}`,
  job: {
    rw: 'randrw',
    readShare: 70,
    block: 4 * KIB,
    jobs: 8,
    direct,
    engine: 'psync' as const,
    depth: 1,
    loop: direct,
  },
  metric: 'iops' as const,
  bars: {},
}));

const STREAM_ACCESSES = [
  { name: '128k read (O_RDONLY)', block: 128 * KIB, rw: 'read', bars: {} },
  { name: '1M read (O_RDONLY)', block: MIB, rw: 'read', bars: { bindfs: 1.5 } },
  { name: '1M read (O_RDWR)', block: MIB, rw: 'rw', readShare: 100, bars: { bindfs: 1.5 } },
  { name: '128k write', block: 128 * KIB, rw: 'write', bars: {} },
  { name: '1M write', block: MIB, rw: 'write', bars: { bindfs: 1.5, 'fuse-native': 3 } },
] as const;

const streamRows: readonly FsRow[] = CACHINGS.flatMap((caching) =>
  STREAM_ACCESSES.map(({ name, bars, ...access }) => ({
    name: `${name} ${caching.name}`,
    job: {
      ...access,
      jobs: 1,
      direct: caching.direct,
      engine: 'psync' as const,
      depth: 1,
      loop: caching.direct,
    },
    metric: 'bytesPerSecond' as const,
    bars,
  })),
);

/**
 * `direct`: no cache of the mount takes part; the backing files are in page cache all the same, because they are on
 * tmpfs. `buffered`: starts with nothing in the mount's page cache and touches no byte twice.
 */
export const FS_ROWS: readonly FsRow[] = [...smallRows, ...queuedRows, ...mixedRows, ...streamRows];
