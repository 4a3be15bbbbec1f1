import { formatDuration } from '../leaves/duration.js';
import { MigrateFsError } from '../leaves/errors.js';
import { parseHostPort } from '../leaves/host-port.js';
import type { MigrationRequest } from '../leaves/migration.js';
import type { BytesPerSecond, Millis } from '../leaves/units.js';
import { millis } from '../leaves/units.js';
import { brokerChoiceOf, brokerTermsMessage } from './broker-message.js';
import { cutoverName, cutoverOf, rateOfKb, wholeKbPerS } from './migration-message.js';
import type { StartMigrationRequest } from './wire.js';

const IMAGES_MAX = 64;
/** Bytes; PATH_MAX and NAME_MAX of Linux. */
const IMAGE_NAME_BYTES_MAX = 4095;
const IMAGE_NAME_PART_BYTES_MAX = 255;
const PRIORITY_MAX = 9;
/** Characters. */
const REQUEST_ID_LENGTH_MAX = 128;
const LIMIT_KB_PER_S_MAX = 1e9;

const invalid = (message: string): MigrateFsError => new MigrateFsError('INVALID_ARGUMENT', message);

/** Refuses by its letters alone a name that could leave the exported directory; links are the file system's part. */
const checkImageName = (name: string): void => {
  const shown = JSON.stringify(name.slice(0, 200));
  if (name === '') throw invalid('an image name is empty');
  if (name.startsWith('/'))
    throw invalid(`image ${shown} is an absolute path: give its name relative to the exported directory`);
  if (name.includes('\0')) throw invalid(`image ${shown} has a NUL in its name`);
  const parts = name.split('/');
  if (parts.some((part) => part === '' || part === '.' || part === '..'))
    throw invalid(`image ${shown} is not a plain relative name: no '..', '.' or empty parts`);
  if (
    Buffer.byteLength(name) > IMAGE_NAME_BYTES_MAX ||
    parts.some((part) => Buffer.byteLength(part) > IMAGE_NAME_PART_BYTES_MAX)
  )
    throw invalid(`image name too long: ${shown}`);
};

/** `kb` in KB/s as it came from the wire. INVALID_ARGUMENT when out of range. */
export const checkedLimit = (what: string, kb: number): BytesPerSecond => {
  if (!Number.isInteger(kb) || kb < 0 || kb > LIMIT_KB_PER_S_MAX)
    throw invalid(
      `${what} limit of ${kb} KB/s is out of range: 1 to ${LIMIT_KB_PER_S_MAX}, or 0 for no limit`,
    );
  return rateOfKb(kb);
};

/** Milliseconds of the last instant that a Date can show. */
export const INSTANT_MAX = 8.64e15;

const deadlineOf = (message: StartMigrationRequest, now: Millis): Millis | undefined => {
  if (message.deadlineAfterMs === 0) throw invalid('a deadline 0 ms from now cannot be met');
  const instant =
    message.deadlineAfterMs === undefined
      ? message.deadlineUnixMs
      : Math.round(now) + message.deadlineAfterMs;
  if (instant === undefined) return undefined;
  if (instant > INSTANT_MAX) throw invalid('the deadline is after all dates: leave it out');
  const late = now - instant;
  if (late >= 0)
    throw invalid(
      `the deadline ${new Date(instant).toISOString()} is ${formatDuration(late)} in the past by this host's clock`,
    );
  return millis(instant);
};

/** Names of images whose descriptions are asked for. INVALID_ARGUMENT says what is wrong. */
export const checkedImageNames = (names: readonly string[]): readonly string[] => {
  if (names.length === 0 || names.length > IMAGES_MAX)
    throw invalid(`${names.length} images named: give 1 to ${IMAGES_MAX}`);
  names.forEach(checkImageName);
  return names;
};

const checkedRequestId = (requestId = ''): string => {
  if (requestId.length > REQUEST_ID_LENGTH_MAX)
    throw invalid(`request_id of ${requestId.length} characters: at most ${REQUEST_ID_LENGTH_MAX}`);
  return requestId;
};

/** Checks a StartMigrationRequest; `now` is the wall clock. INVALID_ARGUMENT says what is wrong. */
export const migrationRequestOf = (message: StartMigrationRequest, now: Millis): MigrationRequest => {
  const { images, priority } = message;
  if (images.length === 0 || images.length > IMAGES_MAX)
    throw invalid(`${images.length} images given: a migration moves 1 to ${IMAGES_MAX}`);
  images.forEach(checkImageName);
  const twice = images.find((name, index) => images.indexOf(name) !== index);
  if (twice !== undefined) throw invalid(`image ${JSON.stringify(twice)} is given twice`);
  if (parseHostPort(message.target).port === 0) throw invalid(`the target ${message.target} has no port`);
  if (priority > PRIORITY_MAX) throw invalid(`priority ${priority} is out of range: 0 to ${PRIORITY_MAX}`);
  const cutover = cutoverOf(message.cutover);
  if (!cutover) throw invalid(`unknown cutover policy ${message.cutover}`);
  const deadline = deadlineOf(message, now);
  const requestId = checkedRequestId(message.requestId);
  const broker = message.broker ? brokerChoiceOf(message.broker) : undefined;
  return {
    images: [...images],
    target: message.target,
    cutover,
    netLimit: checkedLimit('network', message.networkLimitKbPerS),
    diskLimit: checkedLimit('disk', message.diskLimitKbPerS),
    ...(deadline !== undefined && { deadline }),
    priority,
    ...(broker !== undefined && { broker }),
    ...(requestId !== '' && { requestId }),
  };
};

/** What a client asks for. A relative deadline is counted by the daemon's clock. */
export interface StartOptions extends MigrationRequest {
  readonly deadlineAfter?: Millis;
}

export const startRequestMessage = (options: StartOptions): StartMigrationRequest => ({
  target: options.target,
  images: options.images,
  cutover: cutoverName(options.cutover),
  networkLimitKbPerS: wholeKbPerS(options.netLimit),
  diskLimitKbPerS: wholeKbPerS(options.diskLimit),
  priority: options.priority,
  ...(options.broker !== undefined && { broker: brokerTermsMessage(options.broker) }),
  ...(options.deadline !== undefined && { deadlineUnixMs: Math.round(options.deadline) }),
  ...(options.deadlineAfter !== undefined && { deadlineAfterMs: Math.round(options.deadlineAfter) }),
  ...(options.requestId !== undefined && { requestId: options.requestId }),
});
