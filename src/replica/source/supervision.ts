import type { Clock } from '../../leaves/clock.js';
import { MigrateFsError } from '../../leaves/errors.js';
import { millis } from '../../leaves/units.js';
import type { ImageGroup } from './image-group.js';
import type { LoadObserver } from './load-observer.js';
import type { MigrationStatus } from './migration-status.js';
import type { SourceWire } from './source-wire.js';

/** Between two looks at what was written and became dirty. */
const SAMPLE_INTERVAL = millis(250);
const SAMPLES_PER_REPORT = 2;
/** A guest never waits longer than this (and an interval) for a target whose disk hangs. */
const MIRROR_ACK_MAX = millis(10_000);

export interface SupervisionOptions {
  readonly clock: Clock;
  readonly group: ImageGroup;
  readonly wire: SourceWire;
  readonly observer: LoadObserver;
  readonly status: MigrationStatus;
  /** Data address, for messages. */
  readonly target: string;
  /** It cannot go on. */
  readonly failed: (error: unknown) => void;
  readonly signal: AbortSignal;
}

/** Samples a migration, reports it, and ends what cannot go on, four times a second until it is over. */
export const supervise = (options: SupervisionOptions): void => {
  const { clock, group, wire, observer, status, target, failed, signal } = options;
  let samples = 0;
  const look = (): void => {
    if (status.isFinal || signal.aborted) return;
    samples++;
    try {
      observer.sample();
      group.assertTracked();
      if (samples % SAMPLES_PER_REPORT === 0) status.tell();
    } catch (error) {
      failed(error);
    }
    if (wire.stalled > MIRROR_ACK_MAX)
      wire.drop(
        new MigrateFsError(
          'UNAVAILABLE',
          `${target} acknowledged nothing for ${MIRROR_ACK_MAX / 1000} s while a guest waited`,
        ),
      );
    clock.after(SAMPLE_INTERVAL, look);
  };
  clock.after(SAMPLE_INTERVAL, look);
};
