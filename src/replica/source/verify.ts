import { createHash } from 'node:crypto';
import type { VerifyReport } from '../../leaves/migration.js';
import type { Bytes } from '../../leaves/units.js';
import { bytes, MiB } from '../../leaves/units.js';
import type { ExtentLock } from '../extent-locks.js';
import type { BufferPool } from './buffer-pool.js';
import { EXTENT_BYTES_MAX } from './copier.js';
import type { SourceImage } from './source-image.js';
import type { RemoteDigest, SourceWire } from './source-wire.js';

/** Holes are compared in larger steps: there is nothing to read here. */
const HOLE_STEP_BYTES = bytes(64 * MiB);
const COMPARISONS_MAX = 4;
const MISMATCHES_REPORTED_MAX = 1000;

/**
 * Compares an image that is in sync with its replica while guests go on writing: an extent is locked until its digest
 * is asked for, so both sides look at the same moment of it. Null: the connection broke. Rejects with the signal's
 * reason, once nothing is read any more; no digest is asked for after it aborts.
 */
export const verifyImage = async (
  image: SourceImage,
  wire: SourceWire,
  buffers: BufferPool,
  signal: AbortSignal,
): Promise<VerifyReport | null> => {
  const mismatches: { offset: Bytes; length: Bytes }[] = [];
  const running = new Set<Promise<void>>();
  let broken = false;
  let failure: unknown;
  const size = image.port.size();
  for (let at = 0; at < size && !broken && !failure && !signal.aborted; ) {
    const data = image.port.nextData(at);
    const hole = Math.min(data?.offset ?? size, size) - at;
    const length = hole > 0 ? Math.min(hole, HOLE_STEP_BYTES) : Math.min(EXTENT_BYTES_MAX, size - at);
    const offset = at;
    const job = compareExtent(image, wire, buffers, offset, length, signal)
      .then(
        (same) => {
          broken ||= same === null;
          if (same === false && mismatches.length < MISMATCHES_REPORTED_MAX)
            mismatches.push({ offset: offset as Bytes, length: length as Bytes });
        },
        (error: unknown) => {
          failure = error;
        },
      )
      .then(() => void running.delete(job));
    running.add(job);
    while (running.size >= COMPARISONS_MAX) await Promise.race(running);
    at += length;
  }
  await Promise.all(running);
  signal.throwIfAborted();
  if (failure) throw failure;
  return broken ? null : { image: image.name, bytesCompared: size as Bytes, mismatches };
};

/** Null: the connection broke. */
const compareExtent = async (
  image: SourceImage,
  wire: SourceWire,
  buffers: BufferPool,
  offset: number,
  length: number,
  signal: AbortSignal,
): Promise<boolean | null> => {
  const lock = await lockSent(image, offset, length, signal);
  let local: Buffer | null = null;
  let answer: Promise<RemoteDigest | null>;
  try {
    const hole = image.port.segments(offset, length).every((segment) => !segment.data);
    if (!hole) local = await localDigest(image, buffers, offset, length);
    signal.throwIfAborted();
    answer = wire.digest(image.index, offset, length, hole);
  } finally {
    image.locks.release(lock);
  }
  const remote = await answer;
  if (remote === null) return null;
  return local ? local.equals(remote.sha256) : remote.zero;
};

/** Locks an extent whose writes have all been sent. */
const lockSent = async (
  { locks, sender }: SourceImage,
  offset: number,
  length: number,
  signal: AbortSignal,
): Promise<ExtentLock> => {
  for (;;) {
    const lock = await locks.acquire(offset, length, 'exclusive', signal);
    if (!sender.waits(offset, length)) return lock;
    locks.release(lock);
    sender.hurry(offset, length);
    await sender.sent(signal, offset, length);
  }
};

/** Of what lies before the end of the file, as the target does it. */
const localDigest = async (
  image: SourceImage,
  buffers: BufferPool,
  offset: number,
  length: number,
): Promise<Buffer> => {
  const hash = createHash('sha256');
  const buffer = buffers.take(Math.min(EXTENT_BYTES_MAX, length));
  try {
    for (let at = offset; at < offset + length; ) {
      const part = buffer.subarray(0, Math.min(EXTENT_BYTES_MAX, offset + length - at));
      const read = await image.port.read(part, at);
      hash.update(part.subarray(0, read));
      if (read < part.length) break;
      at += read;
    }
  } finally {
    buffers.give(buffer);
  }
  return hash.digest();
};
