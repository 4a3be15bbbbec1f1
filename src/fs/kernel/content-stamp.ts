import type { Millis } from '../../leaves/units.js';
import type { StatBuffer } from '../stat-buffer.js';

/** Timestamps of some file systems move in steps of a timer tick; 10 ms at the most. */
const TIMESTAMP_STEP_MS = 20;

/**
 * Tells whether a file's content has changed since it was last opened: size and modification time. Empty (never
 * equal to another) while the file was changed so recently that a further change might not move its time.
 */
export const contentStamp = (stat: StatBuffer, wall: Millis): string => {
  const seconds = stat.words[29]! * 2 ** 32 + stat.words[28]!;
  const nanoseconds = stat.words[30]!;
  if (Math.abs(wall - (seconds * 1000 + nanoseconds / 1e6)) < TIMESTAMP_STEP_MS) return '';
  return `${stat.size} ${seconds} ${nanoseconds}`;
};
