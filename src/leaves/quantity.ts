/** Sizes and rates as people type and read them: KB, MB, GB, TB are powers of 1000, KiB to TiB of 1024. */
import { MigrateFsError } from './errors.js';
import type { Bytes, BytesPerSecond } from './units.js';
import { bytes, bytesPerSecond, UNLIMITED } from './units.js';

const FACTORS: Readonly<Record<string, number>> = {
  B: 1,
  kB: 1e3,
  KB: 1e3,
  MB: 1e6,
  GB: 1e9,
  TB: 1e12,
  PB: 1e15,
  KiB: 1024,
  MiB: 1024 ** 2,
  GiB: 1024 ** 3,
  TiB: 1024 ** 4,
  PiB: 1024 ** 5,
};

/** Bytes in a unit of bits; networks count in powers of 1000. */
const BIT_FACTORS: Readonly<Record<string, number>> = {
  bit: 1 / 8,
  kbit: 1e3 / 8,
  Mbit: 1e6 / 8,
  Gbit: 1e9 / 8,
  Tbit: 1e12 / 8,
};

const NUMBER_AND_UNIT = /^(\d{1,16}(?:\.\d{1,9})?) ?([A-Za-z]+)$/;

const inBytes = (text: string, factors = FACTORS): number | undefined => {
  const match = NUMBER_AND_UNIT.exec(text);
  const factor = Object.hasOwn(factors, match?.[2] ?? '') ? factors[match?.[2] ?? ''] : undefined;
  if (!match || factor === undefined) return undefined;
  const value = Math.round(Number(match[1]) * factor);
  return Number.isSafeInteger(value) ? value : undefined;
};

/** Reads a size such as `64KiB` or `1.5 GB`. INVALID_ARGUMENT says what is accepted. */
export const parseSize = (text: string): Bytes => {
  const value = text === '0' ? 0 : inBytes(text);
  if (value === undefined)
    throw new MigrateFsError(
      'INVALID_ARGUMENT',
      `not a size: '${text}'; give a number with B, KB, MB, GB, TB (10^3) or KiB, MiB, GiB, TiB (2^10)`,
    );
  return bytes(value);
};

/**
 * Reads a rate such as `50MB/s`, `50MB` or `800 KiB/s`; `unlimited` and 0 mean no limit. A bare number is refused:
 * the network API counts in KB/s, most tools in bytes. INVALID_ARGUMENT says what is accepted.
 */
export const parseRate = (text: string): BytesPerSecond => {
  if (text === 'unlimited') return UNLIMITED;
  const amount = text.endsWith('/s') ? text.slice(0, -2) : text;
  const value = amount === '0' ? 0 : inBytes(amount);
  if (value === undefined)
    throw new MigrateFsError(
      'INVALID_ARGUMENT',
      `not a rate: '${text}'; give a number with KB/s, MB/s, GB/s (10^3) or KiB/s, MiB/s, GiB/s (2^10), ` +
        'or unlimited (or 0)',
    );
  return value === 0 ? UNLIMITED : bytesPerSecond(value);
};

/**
 * Reads what a link carries, such as `10Gbit/s`, `100 Mbit` or `1.25GB/s`: at least 1 byte a second, never unlimited.
 * INVALID_ARGUMENT says what is accepted.
 */
export const parseCapacity = (text: string): BytesPerSecond => {
  const amount = text.endsWith('/s') ? text.slice(0, -2) : text;
  const value = inBytes(amount) ?? inBytes(amount, BIT_FACTORS);
  if (!value)
    throw new MigrateFsError(
      'INVALID_ARGUMENT',
      `not a capacity: '${text}'; give a number with kbit/s, Mbit/s, Gbit/s or KB/s, MB/s, GB/s (10^3), ` +
        'or KiB/s, MiB/s, GiB/s (2^10)',
    );
  return bytesPerSecond(value);
};

const scaled = (value: number, base: number, names: readonly string[]): string => {
  const rounds = (amount: number): string => (amount >= 100 ? amount.toFixed(0) : amount.toFixed(1));
  let amount = value;
  let step = 0;
  // Compared as printed, so that 1023.97 KiB becomes 1.0 MiB and not 1024 KiB.
  while (step < names.length - 1 && Number(rounds(amount)) >= base) {
    amount /= base;
    step++;
  }
  return `${step === 0 ? Math.round(amount) : rounds(amount)} ${names[step]}`;
};

/** A size for people, in powers of 1024: `1.5 GiB`. */
export const formatSize = (size: number): string =>
  scaled(size, 1024, ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']);

/** A size beside rates, in powers of 1000 like them: `1.6 GB`. */
export const formatSizeBesideRates = (size: number): string =>
  scaled(size, 1000, ['B', 'KB', 'MB', 'GB', 'TB', 'PB']);

/** A rate for people, in powers of 1000: `117 MB/s`, or `unlimited`. `rate` is in bytes per second. */
export const formatRate = (rate: number): string =>
  rate === UNLIMITED ? 'unlimited' : `${scaled(rate, 1000, ['B', 'KB', 'MB', 'GB', 'TB'])}/s`;
