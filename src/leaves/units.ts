/** Branded numbers. A bare `number` that crosses a module boundary is a smell; each brand has one constructor. */

declare const brand: unique symbol;
type Branded<Name extends string> = number & { readonly [brand]: Name };

/** A count of bytes, or a byte offset: an integer from 0 to 2^53 - 1. */
export type Bytes = Branded<'Bytes'>;
/** Index of a block, the unit that one dirty bit covers. */
export type BlockIndex = Branded<'BlockIndex'>;
/** A duration or a monotonic instant in milliseconds. */
export type Millis = Branded<'Millis'>;
/** A rate in bytes per second; `UNLIMITED` where a limit is meant and there is none. */
export type BytesPerSecond = Branded<'BytesPerSecond'>;
/** Ownership number of an image: each cutover raises it, a stale one is refused. */
export type Generation = Branded<'Generation'>;

export const KiB = 1024;
export const MiB = 1024 * 1024;
export const GiB = 1024 * 1024 * 1024;

const natural = (value: number, what: string): number => {
  if (!Number.isSafeInteger(value) || value < 0) throw new RangeError(`${what} out of range: ${value}`);
  return value;
};

export const bytes = (value: number): Bytes => natural(value, 'bytes') as Bytes;
export const blockIndex = (value: number): BlockIndex => natural(value, 'block index') as BlockIndex;
export const generation = (value: number): Generation => natural(value, 'generation') as Generation;

export const millis = (value: number): Millis => {
  if (!Number.isFinite(value) || value < 0) throw new RangeError(`milliseconds out of range: ${value}`);
  return value as Millis;
};

export const bytesPerSecond = (value: number): BytesPerSecond => {
  if (!(value > 0)) throw new RangeError(`rate out of range: ${value}`);
  return value as BytesPerSecond;
};

/** No limit. */
export const UNLIMITED = Number.POSITIVE_INFINITY as BytesPerSecond;

/** A range of bytes in an image. */
export interface Extent {
  readonly offset: Bytes;
  readonly length: Bytes;
}
