import { pause } from '../../leaves/clock.js';
import type { ErrorCode } from '../../leaves/errors.js';
import { MigrateFsError } from '../../leaves/errors.js';
import { migratefs } from '../wire/generated/data.js';
import type { PeerConnection } from '../wire/peer-connection.js';
import { Backoff } from './backoff.js';
import type { SourceEnvironment } from './environment.js';
import { greet } from './handshake.js';
import type { SourceWire } from './source-wire.js';
import { failureOf } from './source-wire.js';

/** Answers to RESUME after which trying again is of no use. */
const PERMANENT: readonly ErrorCode[] = [
  'NOT_FOUND',
  'FAILED_PRECONDITION',
  'INVALID_ARGUMENT',
  'ALREADY_EXISTS',
  'PERMISSION_DENIED',
  'CANCELLED',
  'UNIMPLEMENTED',
];

type Resumption =
  /** The wire is attached. */
  | {
      readonly kind: 'resumed';
      readonly remembers: boolean;
      readonly taken: boolean;
      readonly streamToken: Uint8Array;
      /** The run of the target's daemon that answered. */
      readonly instance: string;
    }
  /** Worth another try, later. */
  | { readonly kind: 'refused'; readonly error: MigrateFsError }
  /** The target will not have it any more. */
  | { readonly kind: 'given-up'; readonly error: MigrateFsError };

/** Says hello again over a new connection, which it closes unless the target resumes. UNAVAILABLE: it broke. */
const resumeOver = async (
  connection: PeerConnection,
  wire: SourceWire,
  hello: migratefs.data.Hello.$Properties,
  signal: AbortSignal,
): Promise<Resumption> => {
  const purpose = migratefs.data.Hello.Purpose.RESUME;
  try {
    const reply = await greet(connection, { ...hello, purpose }, signal, ({ failure }) => {
      if (!failure && !signal.aborted) wire.attach(connection);
    });
    if (reply.failure) {
      const error = failureOf(reply.failure);
      return { kind: PERMANENT.includes(error.code) ? 'given-up' : 'refused', error };
    }
    signal.throwIfAborted();
    const { remembers, taken, streamToken, targetInstance } = reply;
    return { kind: 'resumed', remembers, taken, streamToken, instance: targetInstance };
  } finally {
    if (!wire.isOver(connection)) connection.close();
  }
};

export interface ReconnectOptions {
  readonly environment: SourceEnvironment;
  readonly wire: SourceWire;
  readonly target: string;
  readonly hello: migratefs.data.Hello.$Properties;
  /** Whether it goes on although the target will not have it any more, for this reason. */
  readonly patient: (error: MigrateFsError) => boolean;
  /** Why the last try failed. */
  readonly onError: (error: MigrateFsError) => void;
  readonly signal: AbortSignal;
}

export interface Reconnected {
  readonly connection: PeerConnection;
  readonly resumption: Exclude<Resumption, { kind: 'refused' }>;
}

/** Tries with backoff, for ever, until the target has answered. Rejects with the signal's reason. */
export const reconnect = async (options: ReconnectOptions): Promise<Reconnected> => {
  const { environment, wire, target, hello, patient, onError, signal } = options;
  const backoff = new Backoff(environment.random);
  for (;;) {
    try {
      const connection = await environment.connect(target, signal);
      const resumption = await resumeOver(connection, wire, hello, signal);
      if (resumption.kind === 'resumed') return { connection, resumption };
      if (resumption.kind === 'given-up' && !patient(resumption.error)) return { connection, resumption };
      onError(resumption.error);
    } catch (error) {
      signal.throwIfAborted();
      if (!(error instanceof MigrateFsError)) throw error;
      onError(error);
    }
    await pause(environment.clock, backoff.next(), signal);
  }
};
