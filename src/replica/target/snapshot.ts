import type { PlainError } from '../../leaves/errors.js';
import type { MigrationSnapshot, MigrationState } from '../../leaves/migration.js';
import type { Millis } from '../../leaves/units.js';
import { bytes, UNLIMITED } from '../../leaves/units.js';
import type { MigrationTerms } from './migration-terms.js';
import type { Received } from './received.js';
import type { TargetImage } from './target-image.js';

interface Described {
  readonly terms: MigrationTerms;
  readonly state: MigrationState;
  readonly images: readonly TargetImage[];
  readonly received: Received;
  readonly startedAt: Millis;
  readonly endedAt: Millis | undefined;
  readonly error: PlainError | undefined;
  readonly cutoverStall: Millis | undefined;
}

/** What is reported of a migration at its target. */
export const describeReception = (migration: Described): MigrationSnapshot => {
  const { terms, state, images, received, startedAt, endedAt, error, cutoverStall } = migration;
  return {
    id: terms.id,
    role: 'target',
    state,
    peer: terms.source,
    images: images.map(({ name, size, allocated, generation }) => ({
      name,
      size,
      allocated,
      left: images.length === 1 ? received.left : bytes(0),
      dirty: bytes(0),
      generation,
    })),
    cutover: terms.cutover,
    priority: terms.priority,
    startedAt,
    ...(endedAt === undefined ? {} : { endedAt }),
    ...received.describe(),
    writeRate: 0,
    dirtyRate: 0,
    netLimit: UNLIMITED,
    diskLimit: UNLIMITED,
    ...(error ? { error } : {}),
    ...(cutoverStall === undefined ? {} : { cutoverStall }),
  };
};
