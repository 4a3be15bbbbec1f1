import { createHash } from 'node:crypto';
import { EXTENT_BYTES_MAX } from './copier.js';
import type { SourceEnvironment } from './environment.js';
import type { SourceImage } from './source-image.js';
import type { SourceWire } from './source-wire.js';

/** Digests asked for and not answered yet. */
const DIGESTS_IN_FLIGHT_MAX = 8;
/** Extents looked at before other work of the thread gets its turn. */
const EXTENTS_A_TURN = 500;
/** Holes sent and not acknowledged yet. */
const HOLES_IN_FLIGHT_MAX = 4096;

/**
 * After a target has forgotten what it acknowledged: compares every data extent that is not dirty anyway by digest, and
 * marks what differs. A hole is not compared but sent, which costs a frame. Writers may go on: what they change is marked
 * anyway, before or after. Goes on where an earlier call was broken off: what had no answer then is marked, and what is lost
 * of the holes. Resolves with the bytes marked. Rejects with the signal's reason, or what reading threw.
 */
export const resync = async (
  image: SourceImage,
  wire: SourceWire,
  { buffers, turn }: Pick<SourceEnvironment, 'buffers' | 'turn'>,
  signal: AbortSignal,
): Promise<number> => {
  image.sendSize(true);
  const running = new Set<Promise<void>>();
  let marked = 0;
  let failure: unknown;
  const compare = async (offset: number, length: number): Promise<void> => {
    const buffer = buffers.take(length);
    const read = await image.port.read(buffer.subarray(0, length), offset);
    const digest = createHash('sha256').update(buffer.subarray(0, read)).digest();
    buffers.give(buffer);
    const answer = await wire.digest(image.index, offset, read, false);
    if (read === length && answer && digest.equals(answer.sha256)) return;
    image.bitmap.mark(offset, length);
    marked += length;
  };
  let looked = 0;
  const breathe = async (): Promise<void> => {
    if (++looked % EXTENTS_A_TURN === 0) await turn();
    await wire.inFlight.drained(signal, HOLES_IN_FLIGHT_MAX);
    signal.throwIfAborted();
  };
  const size = image.port.size();
  let at = image.compared;
  try {
    while (at < size) {
      await breathe();
      const data = image.port.nextData(at);
      const hole = (data?.offset ?? size) - at;
      if (hole > 0) sendHole(image, wire, at, hole);
      for (at += Math.max(hole, 0); data && at < data.offset + data.length; ) {
        while (running.size >= DIGESTS_IN_FLIGHT_MAX) await Promise.race(running);
        signal.throwIfAborted();
        const length = Math.min(EXTENT_BYTES_MAX, data.offset + data.length - at);
        if (image.bitmap.allDirty(at, length)) {
          await breathe();
          at += length;
          continue;
        }
        const job = compare(at, length).then(
          () => void running.delete(job),
          (error: unknown) => {
            failure = error;
            running.delete(job);
          },
        );
        running.add(job);
        at += length;
      }
    }
  } finally {
    await Promise.all(running);
    if (!failure) image.compared = at;
  }
  signal.throwIfAborted();
  if (failure) throw failure;
  return marked;
};

const sendHole = (image: SourceImage, wire: SourceWire, offset: number, length: number): void => {
  wire.send({ kind: 'hole', image: image.index, offset, length }, (outcome) => {
    if (outcome === 'lost') image.bitmap.mark(offset, length);
  });
};
