import type { MigrationRequest, MigrationSnapshot, MigrationState } from '../../leaves/migration.js';
import type { TimeLeft } from '../../leaves/time-left.js';
import { timeLeft } from '../../leaves/time-left.js';
import type { Bytes, Millis } from '../../leaves/units.js';
import { bytes, generation, millis } from '../../leaves/units.js';
import type { ImageGroup } from './image-group.js';
import type { Limits } from './limits.js';
import type { LoadObserver } from './load-observer.js';
import type { Pacing } from './pacing.js';
import type { Progress } from './progress.js';

interface Described {
  readonly id: string;
  readonly state: MigrationState;
  readonly request: MigrationRequest;
  readonly group: ImageGroup;
  readonly progress: Progress;
  readonly observer: LoadObserver;
  readonly pacing: Pacing;
  readonly limits: Limits;
  readonly startedAt: Millis;
  readonly bytesTotal: Bytes;
}

const estimated = ({
  expected,
  low,
  high,
}: TimeLeft): Pick<MigrationSnapshot, 'eta' | 'etaLow' | 'etaHigh'> => ({
  eta: expected,
  etaLow: low,
  ...(Number.isFinite(high) ? { etaHigh: millis(high) } : {}),
});

/** What is reported of a migration at its source, but for how it ended. */
export const describeTransfer = (migration: Described): MigrationSnapshot => {
  const { id, state, request, group, progress, pacing, limits, startedAt, bytesTotal } = migration;
  // While its data is being looked for, what is marked is next to nothing: it is not nearly done, it has not begun.
  const begun = state !== 'bulk-copy' || group.marked;
  const bytesLeft = begun ? group.left : bytes(Math.max(bytesTotal, group.left));
  const moving = state === 'bulk-copy' || state === 'dirty-resend';
  const load = migration.observer.load(bytesLeft);
  const estimate = moving ? timeLeft({ ...load, netRate: Math.min(load.netRate, pacing.rate) }) : undefined;
  return {
    id,
    role: 'source',
    state,
    peer: request.target,
    images: group.images.map(({ name, size, pinned, left, bitmap }) => ({
      name,
      size,
      allocated: pinned.allocated,
      left,
      dirty: bitmap.dirtyBytes,
      generation: generation((pinned.record?.generation ?? 0) + (state === 'completed' ? 1 : 0)),
    })),
    cutover: request.cutover,
    priority: request.priority,
    ...(request.deadline === undefined ? {} : { deadline: request.deadline }),
    startedAt,
    bytesTotal,
    bytesLeft,
    bytesSent: progress.bytesSent,
    bytesAcked: progress.bytesAcked,
    bytesResent: progress.bytesResent,
    bytesMirrored: progress.bytesMirrored,
    netRate: progress.netRate,
    writeRate: progress.writeRate,
    dirtyRate: progress.dirtyRate,
    ...limits.describe(),
    ...(request.requestId === undefined ? {} : { requestId: request.requestId }),
    ...(moving || state === 'mirroring' ? { load } : {}),
    ...(estimate ? estimated(estimate) : {}),
  };
};
