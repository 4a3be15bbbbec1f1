import { fdatasync } from 'node:fs';
import { removeRecord, writeRecord } from '../../fs/image-record.js';
import { MigrateFsError } from '../../leaves/errors.js';
import type { Millis } from '../../leaves/units.js';
import { millis } from '../../leaves/units.js';
import type { SourceEnvironment } from './environment.js';
import type { ImageGroup } from './image-group.js';
import type { SourceImage } from './source-image.js';
import type { SourceWire } from './source-wire.js';

/** While guests still write; then the target counts as lost. */
const FLUSH_AHEAD_MAX = millis(60_000);
/** Draining and flushing may take this long; then the images are given back to their writers. */
const CUTOVER_DRAIN_MAX = millis(10_000);

/**
 * After the fence: waits until the target has acknowledged everything, then flushes both sides. No grace period is
 * needed: a mirrored image is changed by this thread only. UNAVAILABLE: not within `CUTOVER_DRAIN_MAX`, or the
 * connection broke. INTERNAL: the source cannot flush. Rejects with the signal's reason.
 */
export const drainAndFlush = async (
  group: ImageGroup,
  wire: SourceWire,
  environment: SourceEnvironment,
  signal: AbortSignal,
): Promise<void> => {
  await within(CUTOVER_DRAIN_MAX, environment, signal, async (either) => {
    for (const { sender } of group.images) await sender.sent(either);
    await wire.inFlight.drained(either);
    await Promise.all(group.images.map((image) => flushBoth(group, image, wire, false, either)));
  });
};

/**
 * Flushes both sides while guests go on, so that little is left for the flush behind the fence. UNAVAILABLE: the target
 * has not within `FLUSH_AHEAD_MAX`, or the connection broke. INTERNAL: the source cannot flush. Rejects with the
 * signal's reason.
 */
export const flushAhead = (
  group: ImageGroup,
  wire: SourceWire,
  environment: SourceEnvironment,
  signal: AbortSignal,
): Promise<void> =>
  within(FLUSH_AHEAD_MAX, environment, signal, async (either) => {
    await Promise.all(group.images.map((image) => flushBoth(group, image, wire, true, either)));
  });

/**
 * Holds new writes, gets everything to the target and flushes both sides; `fence` may follow. Errors: those of the
 * steps; then `group.unfence` gives the images back.
 */
export const quiesce = async (
  group: ImageGroup,
  wire: SourceWire,
  environment: SourceEnvironment,
  signal: AbortSignal,
): Promise<void> => {
  await flushAhead(group, wire, environment, signal);
  group.fence();
  await drainAndFlush(group, wire, environment, signal);
};

/**
 * Persists that `owner.peer` owns the quiesced images. Checked and done in this call, whose caller makes the offer before
 * anything else has its turn: promises are several steps behind what they wait for, and a target that is lost between
 * them has the images given back to their writers. ABORTED: a write failed meanwhile, so the images are not in sync.
 * Others: those of the record, or the signal's reason; then nothing is fenced.
 */
export const fence = (
  group: ImageGroup,
  owner: { readonly id: string; readonly peer: string },
  signal: AbortSignal,
): void => {
  signal.throwIfAborted();
  if (!group.clean) throw new MigrateFsError('ABORTED', 'a write failed while the images were drained');
  group.assertTracked();
  persistFence(group.images, owner.id, owner.peer);
};

const within = async (
  most: Millis,
  { clock }: SourceEnvironment,
  signal: AbortSignal,
  act: (signal: AbortSignal) => Promise<void>,
): Promise<void> => {
  signal.throwIfAborted();
  const late = new AbortController();
  const forget = clock.after(most, () =>
    late.abort(new MigrateFsError('UNAVAILABLE', `the target did not flush within ${most / 1000} s`)),
  );
  try {
    await act(AbortSignal.any([signal, late.signal]));
  } finally {
    forget();
  }
  signal.throwIfAborted();
};

const flushBoth = (
  group: ImageGroup,
  image: SourceImage,
  wire: SourceWire,
  ahead: boolean,
  signal: AbortSignal,
): Promise<unknown> => {
  const local = new Promise<void>((resolve, reject) => {
    fdatasync(image.pinned.fd, (error) => {
      if (!error) return resolve();
      reject(new MigrateFsError('INTERNAL', `cannot flush image ${image.name}: ${error.message}`));
    });
  });
  const remote = new Promise<void>((resolve, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
    wire.send({ kind: 'sync', image: image.index, ahead }, (outcome) => {
      if (outcome === 'acked') resolve();
      else reject(new MigrateFsError('UNAVAILABLE', 'the connection broke while flushing'));
    });
  });
  return Promise.all([group.using(local), remote]);
};

/** The generation each image has once the target owns it. */
export const nextGenerations = (images: readonly SourceImage[]): number[] =>
  images.map(({ pinned }) => (pinned.record?.generation ?? 0) + 1);

/** Persists on every image that `peer` owns it from now on, or on none. Errors: what writing the record threw. */
const persistFence = (images: readonly SourceImage[], migration: string, peer: string): void => {
  const generations = nextGenerations(images);
  const written: SourceImage[] = [];
  try {
    images.forEach((image, i) => {
      written.push(image);
      const generation = generations[i]!;
      writeRecord(image.pinned.fd, { role: 'fenced', generation, migration, peer, inode: 0 });
    });
  } catch (error) {
    restoreRecords(written);
    throw error;
  }
};

/** Persists what the records were before the fence. Errors: what writing a record threw; it may be repeated. */
export const restoreRecords = (images: readonly SourceImage[]): void => {
  for (const { pinned } of images) {
    if (pinned.record) writeRecord(pinned.fd, pinned.record);
    else removeRecord(pinned.fd);
  }
};
