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

const smallRows: readonly FsRow[] = CACHINGS.flatMap(({ name, direct }) =>
  (['randread', 'randwrite'] as const).flatMap((rw) =>
    [1, 8].map((jobs) => ({
      name: `4k ${rw} ${jobs === 1 ? 'QD1' : `${jobs} jobs`} ${name}`,
      job: { rw, block: 4 * KIB, jobs, direct, engine: 'psync' as const, depth: 1, loop: direct },
      metric: 'iops' as const,
      bars: { passthrough_hp: 1, bindfs: 1.2, 'fuse-native': 3 },
    })),
  ),
);

const queuedRows: readonly FsRow[] = (['randread', 'randwrite'] as const).map((rw) => ({
  name: `4k ${rw} libaio QD16 direct`,
  job: { rw, block: 4 * KIB, jobs: 1, direct: true, engine: 'libaio' as const, depth: 16, loop: true },
  metric: 'iops' as const,
  bars: {},
}));

const streamRows: readonly FsRow[] = CACHINGS.flatMap(({ name, direct }) =>
  (['read', 'write'] as const).flatMap((rw) =>
    [128 * KIB, MIB].map((block) => ({
      name: `${block === MIB ? '1M' : '128k'} ${rw} ${name}`,
      job: { rw, block, jobs: 1, direct, engine: 'psync' as const, depth: 1, loop: direct },
      metric: 'bytesPerSecond' as const,
      bars: block === MIB ? { bindfs: 1.5, ...(rw === 'write' ? { 'fuse-native': 3 } : {}) } : {},
    })),
  ),
);

/**
 * `direct`: every request reaches the daemon; the backing files are in page cache all the same, because they are on
 * tmpfs. `buffered`: starts with nothing in the mount's page cache and touches no byte twice.
 */
export const FS_ROWS: readonly FsRow[] = [...smallRows, ...queuedRows, ...streamRows];
