/** Both ends of making a connection the stream of a migration (data.proto, `StreamReply`). */
import type { ErrorCode } from '../../leaves/errors.js';
import { MigrateFsError } from '../../leaves/errors.js';
import { millis } from '../../leaves/units.js';
import { failureFor } from './failure.js';
import { PROTOCOL_VERSION } from './frame.js';
import type { ConnectOptions } from './peer-connection.js';
import { PeerConnection } from './peer-connection.js';
import type { StreamSocket } from './taken-socket.js';

const LABEL = 'EXPORTER-migratefs-stream';
const REPLY_TIMEOUT = millis(5_000);

interface StreamTerms {
  readonly migrationId: string;
  /** Of the reply to the hello on the connection that the stream goes beside. */
  readonly token: Uint8Array;
}

/**
 * Connects and makes the connection the stream of a migration. Fails as `PeerConnection.connect` does, with the code
 * that the target refused with, and UNAVAILABLE: no answer in time. Rejects with the signal's reason when it aborts.
 */
export const openStream = async (options: ConnectOptions, terms: StreamTerms): Promise<StreamSocket> => {
  const connection = await PeerConnection.connect(options);
  try {
    return await opened(connection, options, terms);
  } finally {
    // Without effect on one that was taken over.
    connection.destroy();
  }
};

const opened = (
  connection: PeerConnection,
  { clock, signal }: ConnectOptions,
  { migrationId, token }: StreamTerms,
): Promise<StreamSocket> =>
  new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason as Error);
    const settle = (): void => {
      forget();
      signal?.removeEventListener('abort', onAbort);
    };
    const fail = (error: unknown): void => {
      settle();
      reject(error);
    };
    const onAbort = (): void => fail(signal?.reason);
    const forget = clock.after(REPLY_TIMEOUT, () =>
      fail(
        new MigrateFsError('UNAVAILABLE', `no answer from ${connection.remote} within ${REPLY_TIMEOUT} ms`),
      ),
    );
    signal?.addEventListener('abort', onAbort, { once: true });
    void connection.closed.then(fail);
    connection.onFrame((frame) => {
      if (frame.body !== 'streamReply')
        throw new MigrateFsError('INVALID_ARGUMENT', `${frame.body} frame instead of a stream reply`);
      const { failure } = frame.streamReply;
      if (failure)
        return fail(
          new MigrateFsError((failure.code || 'INTERNAL') as ErrorCode, failure.message || 'stream refused'),
        );
      settle();
      // In the same turn as the reply: the next byte is not for this connection.
      resolve(connection.takeOver(LABEL, signal));
    });
    connection.send({ streamHello: { protocolVersion: PROTOCOL_VERSION, migrationId, token } });
  });

/** The target's answer to a stream hello with the right token. Fails as `PeerConnection.takeOver` does. */
export const acceptStream = (connection: PeerConnection, signal?: AbortSignal): Promise<StreamSocket> => {
  connection.send({ streamReply: {} });
  return connection.takeOver(LABEL, signal);
};

/** The target's answer to any other; closes the connection. */
export const refuseStream = (connection: PeerConnection, refusal: MigrateFsError): void => {
  connection.send({ streamReply: { failure: failureFor(refusal) } });
  connection.close(refusal);
};
