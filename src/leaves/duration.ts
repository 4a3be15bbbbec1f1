/** Durations and instants as people type and read them. */
import { MigrateFsError } from './errors.js';
import type { Millis } from './units.js';
import { millis } from './units.js';

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** The last instant that `Date` knows. */
const INSTANT_MAX = 8.64e15;

const DURATION =
  /^(?:(\d{1,6})d)?(?:(\d{1,6})h)?(?:(\d{1,7})m)?(?:(\d{1,9}(?:\.\d{1,3})?)s)?(?:(\d{1,12})ms)?$/;
const INSTANT = /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(?::\d{2}(?:\.\d{1,3})?)?(?:Z|[+-]\d{2}:\d{2})$/;

const durationOf = (text: string): number | undefined => {
  const match = text === '' ? null : DURATION.exec(text);
  if (!match) return undefined;
  const part = (index: number): number => Number(match[index] ?? 0);
  return part(1) * DAY + part(2) * HOUR + part(3) * MINUTE + Math.round(part(4) * SECOND) + part(5);
};

/** Reads `10m`, `2h30m`, `1d`, `1.5s`, `250ms`. INVALID_ARGUMENT says what is accepted. */
export const parseDuration = (text: string): Millis => {
  const value = durationOf(text);
  if (value === undefined)
    throw new MigrateFsError(
      'INVALID_ARGUMENT',
      `not a duration: '${text}'; give for example 90s, 10m or 2h30m`,
    );
  return millis(value);
};

/** When something has to be done by: so long from now, or at a wall-clock instant (milliseconds since the epoch). */
export type Deadline =
  | { readonly kind: 'after'; readonly duration: Millis }
  | { readonly kind: 'at'; readonly instant: Millis };

/** The calendar's days of that month: `Date` would read 31 February as 3 March. */
const isRealDay = (text: string): boolean => {
  const [year, month, day] = text.slice(0, 10).split('-').map(Number) as [number, number, number];
  return day >= 1 && day <= new Date(Date.UTC(year, month, 0)).getUTCDate();
};

/** Reads a duration, or an ISO 8601 time with its zone. INVALID_ARGUMENT says what is accepted. */
export const parseDeadline = (text: string): Deadline => {
  const duration = durationOf(text);
  if (duration !== undefined && duration > 0) return { kind: 'after', duration: millis(duration) };
  const instant = INSTANT.test(text) && isRealDay(text) ? Date.parse(text) : Number.NaN;
  if (!(instant >= 0))
    throw new MigrateFsError(
      'INVALID_ARGUMENT',
      `not a deadline: '${text}'; give a duration (90s, 10m, 2h30m) or an ISO time with its zone ` +
        '(2030-01-31T22:00:00Z, 2030-01-31T22:00:00+01:00)',
    );
  return { kind: 'at', instant: millis(instant) };
};

/** A duration for people, in its two largest units: `350 ms`, `4.2 s`, `1m20s`, `2h30m`, `3d4h`. */
export const formatDuration = (duration: number): string => {
  if (duration < 0) return `-${formatDuration(-duration)}`;
  if (Math.round(duration) < SECOND) return `${Math.round(duration)} ms`;
  if (duration < 10 * SECOND - 50) return `${(duration / SECOND).toFixed(1)} s`;
  const seconds = Math.round(duration / SECOND);
  if (seconds < 60) return `${seconds} s`;
  const two = (large: number, largeUnit: string, small: number, smallUnit: string): string =>
    small === 0 ? `${large}${largeUnit}` : `${large}${largeUnit}${small}${smallUnit}`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return two(minutes, 'm', seconds % 60, 's');
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return two(hours, 'h', minutes % 60, 'm');
  return two(Math.floor(hours / 24), 'd', hours % 24, 'h');
};

/** A wall-clock instant for people, UTC: `18:47:10Z` on the day of `now`, otherwise with its date. */
export const formatInstant = (instant: Millis, now: Millis): string => {
  const text = new Date(Math.min(instant, INSTANT_MAX)).toISOString();
  const short = text.replace(/\.\d{3}Z$/, 'Z');
  return text.slice(0, 10) === new Date(Math.min(now, INSTANT_MAX)).toISOString().slice(0, 10)
    ? short.slice(11)
    : short;
};
