import fc from 'fast-check';
import t from 'tap';
import { formatDuration, formatInstant, parseDeadline, parseDuration } from '../../src/leaves/duration.js';
import { millis } from '../../src/leaves/units.js';

t.test('parts add up, from days to milliseconds', async (t) => {
  fc.assert(
    fc.property(
      fc.tuple(...[999, 99, 99, 999, 9999].map((max) => fc.integer({ min: 0, max }))),
      ([d, h, m, s, ms]) => {
        const text = `${d}d${h}h${m}m${s}s${ms}ms`;
        return parseDuration(text) === (((d! * 24 + h!) * 60 + m!) * 60 + s!) * 1000 + ms!;
      },
    ),
  );
  t.equal(parseDuration('10m'), 600_000);
  t.equal(parseDuration('2h30m'), 9_000_000);
  t.equal(parseDuration('1.5s'), 1500);
  t.equal(parseDuration('250ms'), 250);
});

t.test('what is not a duration is refused with examples', async (t) => {
  for (const text of ['', '10', 'm', '10 m', '10M', '-5m', '30m2h', '1h1h', '1.5h', '10min', '1e3s'])
    t.throws(() => parseDuration(text), { code: 'INVALID_ARGUMENT', message: /2h30m/ }, `'${text}'`);
});

t.test('a deadline is a duration from now, or an instant with its zone', async (t) => {
  t.same(parseDeadline('10m'), { kind: 'after', duration: 600_000 });
  t.same(parseDeadline('2030-01-31T22:00:00Z'), { kind: 'at', instant: Date.UTC(2030, 0, 31, 22) });
  t.same(parseDeadline('2030-01-31T22:00:00.250+01:00'), {
    kind: 'at',
    instant: Date.UTC(2030, 0, 31, 21) + 250,
  });
  t.same(parseDeadline('2030-01-31T22:00-02:30'), { kind: 'at', instant: Date.UTC(2030, 1, 1, 0, 30) });
  fc.assert(
    fc.property(fc.date({ min: new Date(0), max: new Date('9999-12-31'), noInvalidDate: true }), (date) => {
      const deadline = parseDeadline(date.toISOString());
      return deadline.kind === 'at' && deadline.instant === date.getTime();
    }),
  );
});

t.test('an instant without a zone, out of the calendar, or no time at all is refused', async (t) => {
  for (const text of [
    '2030-01-31T22:00:00',
    '2030-02-31T22:00:00Z',
    '2030-13-01T00:00:00Z',
    '2030-01-31',
    'now',
    '0s',
  ])
    t.throws(
      () => parseDeadline(text),
      { code: 'INVALID_ARGUMENT', message: /not a deadline.*with its zone/ },
      text,
    );
});

t.test('people read the two largest units', async (t) => {
  const shown: [number, string][] = [
    [0, '0 ms'],
    [350.4, '350 ms'],
    [999.7, '1.0 s'],
    [4200, '4.2 s'],
    [9960, '10 s'],
    [59_700, '1m'],
    [80_000, '1m20s'],
    [9_000_000, '2h30m'],
    [273_600_000, '3d4h'],
    [-80_000, '-1m20s'],
  ];
  for (const [duration, text] of shown) t.equal(formatDuration(duration), text);
});

t.test('what is printed reads back within the precision printed', async () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 10 ** 12 }), (duration) => {
      const back = parseDuration(formatDuration(duration).replace(' ', ''));
      return Math.abs(back - duration) <= Math.max(60, duration * 0.05);
    }),
  );
});

t.test('an instant shows its date only on another day', async (t) => {
  const now = millis(Date.parse('2030-01-31T22:00:00Z'));
  t.equal(formatInstant(millis(Date.parse('2030-01-31T23:59:59.999Z')), now), '23:59:59Z');
  t.equal(formatInstant(millis(Date.parse('2030-02-01T00:00:00Z')), now), '2030-02-01T00:00:00Z');
  t.match(formatInstant(millis(Number.MAX_VALUE), now), /^\+275760-/, 'past what a date can be');
});
