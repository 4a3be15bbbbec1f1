/** Errors of the program as gRPC status, and back. The codes have the same names on both sides. */
import { randomUUID } from 'node:crypto';
import type { ServiceError } from '@grpc/grpc-js';
import { Metadata, status } from '@grpc/grpc-js';
import type { ErrorCode } from '../leaves/errors.js';
import { MigrateFsError } from '../leaves/errors.js';
import type { LogSink } from '../leaves/log-sink.js';

/** Characters of a status message: it travels as a header. */
const MESSAGE_LENGTH_MAX = 2000;
/** Tells what the daemon answered from what the client's own transport made up (both may be UNAVAILABLE). */
const ANSWERED = 'migratefs-answered';

/** Half a character, as a cut may leave, cannot be sent: grpc-js throws where nobody catches it. */
const oneLine = (text: string): string =>
  text
    .replace(/\s*[\r\n]+\s*/g, ' ')
    .slice(0, MESSAGE_LENGTH_MAX)
    .toWellFormed();

interface Status {
  readonly code: status;
  readonly details: string;
  readonly metadata: Metadata;
}

/** What the client gets for `error`. A bug is logged with its stack; the client gets a reference to that line. */
export const statusOfError = (error: unknown, method: string, log: LogSink): Status => {
  const metadata = new Metadata();
  metadata.set(ANSWERED, '1');
  if (error instanceof MigrateFsError && error.code !== 'INTERNAL')
    return { code: status[error.code], details: oneLine(error.message), metadata };
  const reference = randomUUID().slice(0, 8);
  log('error', 'internal error in a control call', { err: error, method, reference });
  return {
    code: status.INTERNAL,
    details: `internal error in the daemon: look for reference ${reference} in its log`,
    metadata,
  };
};

const OTHER_CODES: Readonly<Record<string, ErrorCode>> = {
  UNAUTHENTICATED: 'PERMISSION_DENIED',
  OUT_OF_RANGE: 'INVALID_ARGUMENT',
};

const KNOWN: Readonly<Record<ErrorCode, true>> = {
  INVALID_ARGUMENT: true,
  NOT_FOUND: true,
  ALREADY_EXISTS: true,
  PERMISSION_DENIED: true,
  RESOURCE_EXHAUSTED: true,
  FAILED_PRECONDITION: true,
  ABORTED: true,
  CANCELLED: true,
  UNAVAILABLE: true,
  DEADLINE_EXCEEDED: true,
  UNIMPLEMENTED: true,
  DATA_LOSS: true,
  INTERNAL: true,
};

const codeOf = (name: string): ErrorCode =>
  Object.hasOwn(KNOWN, name) ? (name as ErrorCode) : (OTHER_CODES[name] ?? 'INTERNAL');

/** Who serves, and the command that has to run there. */
export interface ServerKind {
  readonly what: string;
  readonly command: string;
}

export const DAEMON: ServerKind = { what: 'daemon', command: 'migratefs mount' };

const TLS_TROUBLE = /certificate|wrong version number|ECONNRESET|Failed to connect/i;

/** Of what grpc-js says, the cause. */
const causeOf = (details: string): string =>
  /Last error: (?:Error(?: \[\w+\])?: )?(.*?)(?: \([-\d:.TZ]+\))?\.? Resolution note:/.exec(details)?.[1] ??
  details;

const unreachable = (details: string, server: string, { what, command }: ServerKind): string => {
  const here = `cannot reach the ${what} at ${server}: is \`${command}\` running there`;
  if (/ECONNREFUSED/.test(details)) return `${here}?`;
  const fit = TLS_TROUBLE.test(details)
    ? ', and do --tls-ca, --tls-cert and --tls-key fit it (none of them, if it has no certificates)'
    : '';
  return `${here}${fit}? (${causeOf(oneLine(details))})`;
};

/** The error a client sees; `server` is the address that was called. */
export const errorOfStatus = (
  error: ServiceError,
  server: string,
  kind: ServerKind = DAEMON,
): MigrateFsError => {
  const code = codeOf(status[error.code] ?? '');
  const answered = error.metadata?.get(ANSWERED).length > 0;
  const options = { cause: error };
  const { what, command } = kind;
  if (!answered && code === 'UNAVAILABLE')
    return new MigrateFsError(code, unreachable(error.details, server, kind), options);
  if (!answered && code === 'UNIMPLEMENTED')
    return new MigrateFsError(
      code,
      `what serves at ${server} does not know this call: is it \`${command}\`, and of this version?`,
      options,
    );
  if (!answered && code === 'DEADLINE_EXCEEDED')
    return new MigrateFsError(code, `the ${what} at ${server} did not answer in time`, options);
  return new MigrateFsError(
    code,
    error.details === '' ? `the ${what} answered ${code}` : error.details,
    options,
  );
};
