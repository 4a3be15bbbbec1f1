/**
 * Errors that cross a boundary carry a code. Codes are those of gRPC
 * (https://grpc.github.io/grpc/core/md_doc_statuscodes.html), because that is where operators meet them.
 * A bug is an assertion, never one of these.
 */
export type ErrorCode =
  | 'INVALID_ARGUMENT'
  | 'NOT_FOUND'
  | 'ALREADY_EXISTS'
  | 'PERMISSION_DENIED'
  | 'RESOURCE_EXHAUSTED'
  | 'FAILED_PRECONDITION'
  | 'ABORTED'
  | 'CANCELLED'
  | 'UNAVAILABLE'
  | 'DEADLINE_EXCEEDED'
  | 'UNIMPLEMENTED'
  | 'DATA_LOSS'
  | 'INTERNAL';

/** An error an operator can act on: `message` says the cause and, where there is one, the remedy, in one line. */
export class MigrateFsError extends Error {
  override readonly name = 'MigrateFsError';
  readonly code: ErrorCode;
  constructor(code: ErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.code = code;
  }
}

/** What survives a MessagePort or the wire. */
export interface PlainError {
  readonly code: ErrorCode;
  readonly message: string;
}

export const plainError = (error: unknown): PlainError =>
  error instanceof MigrateFsError
    ? { code: error.code, message: error.message }
    : { code: 'INTERNAL', message: error instanceof Error ? (error.stack ?? error.message) : String(error) };

export const revivedError = (plain: PlainError): MigrateFsError =>
  new MigrateFsError(plain.code, plain.message);
