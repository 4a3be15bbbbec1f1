/** Bits in words of 32, as bitmaps in shared memory have them. */

export const popCount = (word: number): number => {
  let v = word - ((word >>> 1) & 0x55555555);
  v = (v & 0x33333333) + ((v >>> 2) & 0x33333333);
  return (((v + (v >>> 4)) & 0x0f0f0f0f) * 0x01010101) >>> 24;
};

/** Bits `from` (inclusive) to `to` (exclusive) of one word, 0 <= from < to <= 32. */
export const maskOf = (from: number, to: number): number =>
  to - from === 32 ? -1 : ((1 << (to - from)) - 1) << from;

/** Bits set from bit `from` (inclusive) to bit `to` (exclusive). */
export const countBits = (words: Int32Array, from: number, to: number): number => {
  if (from >= to) return 0;
  const first = from >>> 5;
  const last = (to - 1) >>> 5;
  if (first === last) return popCount(words[first]! & maskOf(from & 31, ((to - 1) & 31) + 1));
  let count = popCount(words[first]! & maskOf(from & 31, 32));
  for (let index = first + 1; index < last; index++) count += popCount(words[index]!);
  return count + popCount(words[last]! & maskOf(0, ((to - 1) & 31) + 1));
};
