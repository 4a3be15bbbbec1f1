import fc from 'fast-check';
import t from 'tap';
import {
  formatRate,
  formatSize,
  formatSizeBesideRates,
  parseCapacity,
  parseRate,
  parseSize,
} from '../../src/leaves/quantity.js';
import { UNLIMITED } from '../../src/leaves/units.js';

const UNITS: [string, number][] = [
  ['B', 1],
  ['KB', 1e3],
  ['kB', 1e3],
  ['MB', 1e6],
  ['GB', 1e9],
  ['TB', 1e12],
  ['KiB', 2 ** 10],
  ['MiB', 2 ** 20],
  ['GiB', 2 ** 30],
  ['TiB', 2 ** 40],
];

t.test('a whole number times its unit, exactly, with or without a blank', async () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 8000 }),
      fc.constantFrom(...UNITS),
      fc.constantFrom('', ' '),
      (number, [unit, factor], blank) => parseSize(`${number}${blank}${unit}`) === number * factor,
    ),
  );
});

t.test('a rate is a size a second; /s may be left out', async () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 8000 }),
      fc.constantFrom(...UNITS),
      fc.constantFrom('', '/s'),
      (number, [unit, factor], tail) => parseRate(`${number}${unit}${tail}`) === number * factor,
    ),
  );
});

t.test('fractions are rounded to whole bytes', async (t) => {
  t.equal(parseSize('1.5GB'), 1_500_000_000);
  t.equal(parseSize('0.1KiB'), 102);
});

t.test('no limit has three spellings', async (t) => {
  for (const text of ['unlimited', '0', '0/s', '0MB/s']) t.equal(parseRate(text), UNLIMITED, text);
});

t.test('what is not clear is refused with what is accepted', async (t) => {
  for (const text of [
    '',
    '5',
    '5 ',
    'KB',
    '-5MB',
    '5Mb',
    '5mb',
    '5kb',
    '5MBs',
    '1e3MB',
    '5  MB',
    '0x5KB',
    '5toString',
  ])
    t.throws(
      () => parseSize(text),
      { code: 'INVALID_ARGUMENT', message: /KB, MB, GB, TB .*KiB/ },
      `size '${text}'`,
    );
  for (const text of ['', '5', '5/s', '50Mbit/s', '5MB/m', 'Unlimited', '-1MB/s', '5MB/s/s'])
    t.throws(() => parseRate(text), { code: 'INVALID_ARGUMENT', message: /unlimited/ }, `rate '${text}'`);
  t.throws(() => parseSize('9007199254740993B'), { code: 'INVALID_ARGUMENT' }, 'past 2^53');
  t.throws(() => parseSize('9999999999TiB'), { code: 'INVALID_ARGUMENT' }, 'past 2^53');
});

t.test('capacities are counted in bits by networks and in bytes by everybody else', async (t) => {
  t.equal(parseCapacity('10Gbit/s'), 1_250_000_000);
  t.equal(parseCapacity('2.5 Gbit/s'), 312_500_000);
  t.equal(parseCapacity('100Mbit'), 12_500_000);
  t.equal(parseCapacity('64kbit/s'), 8_000);
  t.equal(parseCapacity('8bit/s'), 1);
  t.equal(parseCapacity('1GB/s'), 1_000_000_000);
  t.equal(parseCapacity('1MiB/s'), 1_048_576);
  for (const text of [
    '',
    '0',
    '0Gbit/s',
    '1bit/s',
    '10Gb/s',
    '10gbit/s',
    'unlimited',
    '10',
    '10Gbps',
    '-1Gbit/s',
  ])
    t.throws(
      () => parseCapacity(text),
      { code: 'INVALID_ARGUMENT', message: /Gbit\/s/ },
      `capacity '${text}'`,
    );
});

t.test('any text is a size or INVALID_ARGUMENT, nothing else', async () => {
  fc.assert(
    fc.property(fc.string({ maxLength: 24 }), (text) => {
      try {
        return Number.isSafeInteger(parseSize(text));
      } catch (error) {
        return (error as { code?: string }).code === 'INVALID_ARGUMENT';
      }
    }),
  );
});

t.test('what is printed reads back within the precision printed', async () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 2 ** 50 }), (size) => {
      const back = parseSize(formatSize(size));
      return Math.abs(back - size) <= Math.max(0.5, size * 0.051);
    }),
  );
});

t.test('people read powers of 1024 for sizes and of 1000 for rates', async (t) => {
  t.equal(formatSize(0), '0 B');
  t.equal(formatSize(1023), '1023 B');
  t.equal(formatSize(1024), '1.0 KiB');
  t.equal(formatSize(2 ** 20 - 1), '1.0 MiB', 'never 1024 KiB');
  t.equal(formatSize(150 * 2 ** 30), '150 GiB');
  t.equal(formatSizeBesideRates(42_949_672_960), '42.9 GB');
  t.equal(formatRate(0), '0 B/s');
  t.equal(formatRate(118_250_000), '118 MB/s');
  t.equal(formatRate(UNLIMITED), 'unlimited');
});
