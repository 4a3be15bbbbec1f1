/** Snapshots as text; pure, with the time as an argument. */
import { formatDuration } from '../leaves/duration.js';
import type { MigrationSnapshot, MigrationState } from '../leaves/migration.js';
import { isFinal } from '../leaves/migration.js';
import { formatRate, formatSize } from '../leaves/quantity.js';
import type { Millis } from '../leaves/units.js';
import { UNLIMITED } from '../leaves/units.js';

const STATE_WORDS: Readonly<Record<MigrationState, string>> = {
  preparing: 'preparing',
  'bulk-copy': 'bulk copy',
  'dirty-resend': 'dirty resend',
  mirroring: 'in sync',
  cutover: 'cutover',
  completed: 'completed',
  paused: 'paused',
  interrupted: 'interrupted',
  cancelled: 'cancelled',
  failed: 'failed',
};

export const stateWords = (state: MigrationState): string => STATE_WORDS[state];

/** 0 to 1: what is no longer left to send, of what was allocated at the start. */
export const doneFraction = ({ state, bytesTotal, bytesLeft }: MigrationSnapshot): number => {
  if (state === 'mirroring' || state === 'cutover' || state === 'completed') return 1;
  if (state === 'preparing' || bytesTotal === 0) return 0;
  return Math.min(1, Math.max(0, 1 - bytesLeft / bytesTotal));
};

/** Rounded down: 100 % means in sync. */
export const percent = (snapshot: MigrationSnapshot): string =>
  `${Math.floor(doneFraction(snapshot) * 100)}%`;

/** Bytes of all images that are dirty. */
export const dirtyBytes = (snapshot: MigrationSnapshot): number =>
  snapshot.images.reduce((sum, image) => sum + image.dirty, 0);

/** Time that remains at the deadline once in sync, by the estimate; undefined without a deadline. */
export const deadlineMargin = (snapshot: MigrationSnapshot, now: Millis): string | undefined => {
  if (snapshot.deadline === undefined) return undefined;
  const reached = isFinal(snapshot.state) ? (snapshot.endedAt ?? now) : now;
  const working = snapshot.state === 'bulk-copy' || snapshot.state === 'dirty-resend';
  if (working && snapshot.eta === undefined) return `deadline in ${formatDuration(snapshot.deadline - now)}`;
  const margin = snapshot.deadline - reached - (working ? snapshot.eta! : 0);
  return margin < 0 ? `late by ${formatDuration(-margin)}` : `margin ${formatDuration(margin)}`;
};

/** `5.0 s (4.0 to 7.0)`: the estimate, and the band that the real time is expected in. */
const etaWords = ({ eta, etaLow, etaHigh }: MigrationSnapshot): string => {
  const expected = formatDuration(eta!);
  const low = formatDuration(etaLow ?? 0);
  if (etaHigh === undefined) return `${expected} (${low} or more)`;
  const high = formatDuration(etaHigh);
  const inSeconds = [expected, low, high].every((each) => each.endsWith(' s'));
  return `${expected} (${inSeconds ? low.slice(0, -2) : low} to ${inSeconds ? high.slice(0, -2) : high})`;
};

/** How much detail there is room for: `brief` leaves out limits and bands, `briefest` also what is dirty. */
export const DETAIL_LEVELS = ['full', 'brief', 'briefest'] as const;

/** What stands beside the bar: rate, dirty, ETA, deadline margin, and what is out of the ordinary. */
export const progressDetails = (
  snapshot: MigrationSnapshot,
  now: Millis,
  level: (typeof DETAIL_LEVELS)[number] = 'full',
): string[] => {
  const { state, eta, netLimit, diskLimit, error } = snapshot;
  const margin = deadlineMargin(snapshot, now);
  if (state === 'interrupted')
    return [error?.message ?? 'the peer is lost, retrying', ...(margin ? [margin] : [])];
  return [
    `${formatRate(snapshot.netRate)}${netLimit === UNLIMITED || level !== 'full' ? '' : ` of ${formatRate(netLimit)}`}`,
    ...(level === 'briefest' ? [] : [`dirty ${formatSize(dirtyBytes(snapshot))}`]),
    ...(diskLimit === UNLIMITED || level !== 'full' ? [] : [`disk ${formatRate(diskLimit)}`]),
    ...(eta !== undefined && state !== 'mirroring'
      ? [`ETA ${level === 'full' ? etaWords(snapshot) : formatDuration(eta)}`]
      : []),
    ...(margin ? [level === 'full' && margin.startsWith('margin') ? `deadline ${margin}` : margin] : []),
  ];
};

/** One line on where a migration stands. */
export const progressLine = (snapshot: MigrationSnapshot, now: Millis): string =>
  [
    `${stateWords(snapshot.state)} ${percent(snapshot)} of ${formatSize(snapshot.bytesTotal)}`,
    ...progressDetails(snapshot, now),
  ].join(', ');

/** One line on how a migration ended. */
export const endLine = (snapshot: MigrationSnapshot): string => {
  const took = formatDuration((snapshot.endedAt ?? snapshot.startedAt) - snapshot.startedAt);
  if (snapshot.state !== 'completed')
    return `${snapshot.state} after ${took}${snapshot.error ? `: ${snapshot.error.message}` : ''}`;
  const { bytesSent, bytesResent, bytesMirrored, cutoverStall } = snapshot;
  const stall = cutoverStall === undefined ? '' : `, cutover stall ${formatDuration(cutoverStall)}`;
  return (
    `completed in ${took}: ${formatSize(bytesSent)} sent ` +
    `(${formatSize(bytesResent)} resent, ${formatSize(bytesMirrored)} mirrored)${stall}`
  );
};

/** JSON for hooks: one line, keys as in `MigrationSnapshot`, a limit that is not set is 0. */
export const toJson = (value: unknown): string =>
  JSON.stringify(value, (_key, inner: unknown) => (inner === UNLIMITED ? 0 : inner));

/** A name may contain what would end the line or steer the terminal. */
const printable = (text: string): string =>
  text.replace(/\p{Cc}/gu, (character) => `\\x${character.charCodeAt(0).toString(16).padStart(2, '0')}`);

/** Rows with aligned columns, two blanks between them; control characters in a cell are shown as `\x0a`. */
export const table = (cells: readonly (readonly string[])[]): string => {
  const rows = cells.map((row) => row.map(printable));
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  return rows
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
};
