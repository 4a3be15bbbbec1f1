import { addressOf } from '../libc.js';

export const PAGE_BYTES = 4096;

/** `length` bytes (zeroed) such that the byte at index `at` lies on a page boundary, as O_DIRECT wants it. */
export const alignedBytes = (length: number, at: number): Uint8Array<ArrayBuffer> => {
  const memory = new Uint8Array(length + PAGE_BYTES);
  const past = Number((addressOf(memory) + BigInt(at)) % BigInt(PAGE_BYTES));
  return memory.subarray((PAGE_BYTES - past) % PAGE_BYTES).subarray(0, length);
};

/** A copy of `source` in memory of its own, not zeroed first, with the byte at index `at` on a page boundary. */
export const alignedCopy = (source: Uint8Array, at = 0): Uint8Array<ArrayBuffer> => {
  const memory = Buffer.allocUnsafeSlow(source.length + PAGE_BYTES) as Buffer<ArrayBuffer>;
  const past = Number((addressOf(memory) + BigInt(at)) % BigInt(PAGE_BYTES));
  const start = (PAGE_BYTES - past) % PAGE_BYTES;
  const copy = new Uint8Array(memory.buffer, start, source.length);
  copy.set(source);
  return copy;
};
