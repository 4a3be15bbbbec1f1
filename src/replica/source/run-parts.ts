import { KiB } from '../../leaves/units.js';
import type { Segment } from './ports.js';

const ZEROES = Buffer.alloc(1024 * KiB);

/** Whether the bytes from `from` to `to` (exclusive, a MiB at most) are all zeroes. */
export const isZero = (buffer: Buffer, from: number, to: number): boolean =>
  buffer.compare(ZEROES, 0, to - from, from, to) === 0;

/** Appends a part, joined to the last one where they are neighbours of one kind. */
const push = (parts: Segment[], offset: number, length: number, data: boolean): void => {
  if (length <= 0) return;
  const last = parts.at(-1);
  if (last?.data === data && last.offset + last.length === offset) {
    parts[parts.length - 1] = { offset: last.offset, length: last.length + length, data };
  } else parts.push({ offset, length, data });
};

/**
 * What a run is sent as. `lengths[i]`: bytes that were read of `segments[i]` to its place in `buffer`, which begins at
 * `base` in the file. Pieces of `piece` bytes that are all zeroes become holes, and so does what is gone meanwhile.
 */
export const runParts = (
  buffer: Buffer,
  base: number,
  segments: readonly Segment[],
  lengths: readonly number[],
  piece: number,
): Segment[] => {
  const parts: Segment[] = [];
  segments.forEach(({ offset, length, data }, i) => {
    const read = data ? lengths[i]! : 0;
    const end = offset + read;
    for (let at = offset; at < end; ) {
      const next = Math.min(end, (Math.floor(at / piece) + 1) * piece);
      push(parts, at, next - at, !isZero(buffer, at - base, next - base));
      at = next;
    }
    push(parts, end, length - read, false);
  });
  return parts;
};
