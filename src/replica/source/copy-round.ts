import type Bottleneck from 'bottleneck';
import { bytes, MiB } from '../../leaves/units.js';
import type { BlockRun } from './copier.js';
import { EXTENT_BYTES_MAX, nextRun } from './copier.js';
import type { Pacing } from './pacing.js';
import type { CopyPosition } from './segments.js';
import type { SourceImage } from './source-image.js';
import type { Window } from './window.js';

/**
 * One turn of a migration at the host's copy slots. Bottleneck takes about 0.2 ms of CPU for a job, so a turn is as
 * large as may be: half of the window, so that one batch is read while the other is under way.
 */
const BATCH_BYTES_MAX = bytes(8 * MiB);
const BATCHES_PER_WINDOW = 2;
/** A slow link gets batches of about this long, or of one block, so that a mirrored write never waits behind a long one. */
const BATCH_SECONDS = 0.02;
/** Pieces in one batch: what is dirty here and there is read piece by piece, and other work of the thread waits so long. */
const BATCH_RUNS_MAX = 128;
/** The same where another thread reads. A job takes Bottleneck 1 to 2 ms of waiting, in which as many small pieces are sent. */
const BULK_RUNS_MAX = 1024;
/** Batches of one migration being read at once: one reads while the other waits for the disk. */
const BATCHES_MAX = 2;

export interface RoundOptions {
  readonly window: Window;
  readonly pacing: Pacing;
  readonly turns: Bottleneck;
  /** 0 (first) to 9, as Bottleneck counts. */
  readonly turnPriority: number;
  /** Where the round is; kept up to date. */
  readonly position: CopyPosition;
}

interface Batch {
  readonly runs: readonly BlockRun[];
  readonly bytes: number;
  readonly end: number;
}

/**
 * Copies what is dirty, every image from its beginning to its end once, and resolves when all of it is on its way.
 * Rejects with the signal's reason, or with what reading an image threw.
 */
export const copyRound = async (
  images: readonly SourceImage[],
  options: RoundOptions,
  signal: AbortSignal,
): Promise<void> => {
  const running = new Set<Promise<void>>();
  try {
    for (const [index, image] of images.entries()) {
      Object.assign(options.position, { image: index, block: 0 });
      image.sendSize(false);
      await copyImage(image, options, running, signal);
    }
    options.position.image = images.length;
  } finally {
    await Promise.allSettled(running);
  }
  await Promise.all(running);
};

const copyImage = async (
  image: SourceImage,
  options: RoundOptions,
  running: Set<Promise<void>>,
  signal: AbortSignal,
): Promise<void> => {
  const { window, pacing, turns, turnPriority } = options;
  for (let cursor = 0; ; ) {
    while (running.size >= BATCHES_MAX) await Promise.race(running);
    const batch = nextBatch(image, cursor, pacing.rate, window.limit);
    if (!batch) return;
    cursor = batch.end;
    options.position.block = cursor;
    await window.take(batch.bytes, signal);
    let begun = false;
    try {
      const held = pacing.take(batch.bytes, 'copy', { signal });
      if (held) await held;
      signal.throwIfAborted();
      begun = true;
    } finally {
      if (!begun) window.give(batch.bytes);
    }
    const job = turns
      .schedule({ priority: turnPriority }, () => copyBatch(image, batch, options, signal))
      .then(() => void running.delete(job));
    // Reported when it is waited for, which may be long after it has failed.
    job.catch(() => {});
    running.add(job);
  }
};

const nextBatch = (image: SourceImage, from: number, rate: number, window: number): Batch | undefined => {
  const most = Math.min(BATCH_BYTES_MAX, window / BATCHES_PER_WINDOW, rate * BATCH_SECONDS);
  const { bitmap } = image;
  const runs: BlockRun[] = [];
  let total = 0;
  let cursor = from;
  const runsMost = image.copier.inBulk ? BULK_RUNS_MAX : BATCH_RUNS_MAX;
  while (total < most && runs.length < runsMost) {
    const run = nextRun(bitmap, cursor, Math.min(EXTENT_BYTES_MAX, Math.max(most - total, bitmap.blockSize)));
    if (!run) break;
    runs.push(run);
    total += (run.to - run.from) * bitmap.blockSize;
    cursor = run.to;
  }
  return runs.length > 0 ? { runs, bytes: total, end: cursor } : undefined;
};

const copyBatch = async (
  image: SourceImage,
  batch: Batch,
  { window, pacing }: RoundOptions,
  signal: AbortSignal,
): Promise<void> => {
  if (signal.aborted) return window.give(batch.bytes);
  const sent = await image.copier.copyBatch(batch.runs);
  // Holes and zeroes cost the network nothing.
  pacing.give(batch.bytes - sent);
};
