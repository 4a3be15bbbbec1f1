import { MigrateFsError } from '../../leaves/errors.js';
import type { Frame } from '../wire/frame.js';
import { PROTOCOL_VERSION } from '../wire/frame.js';
import type { migratefs } from '../wire/generated/data.js';
import type { PeerConnection } from '../wire/peer-connection.js';

type HelloReply = migratefs.data.HelloReply;

/** Likely the control port of a daemon, or another service. */
const strange = ({ remote }: PeerConnection, cause: MigrateFsError): MigrateFsError =>
  new MigrateFsError(
    'INVALID_ARGUMENT',
    `${remote} is no data port of a daemon (${cause.message}): give the data address, which \`migratefs status\` shows there`,
    { cause },
  );

/**
 * Sends hello and waits for the reply. `onReply` sees it before any frame that follows it is handed over, so it can
 * set the handler for those. UNAVAILABLE: the connection ended first. INVALID_ARGUMENT: what came is no frame of ours.
 * FAILED_PRECONDITION: another protocol version.
 */
export const greet = (
  connection: PeerConnection,
  hello: migratefs.data.Hello.$Properties,
  signal: AbortSignal,
  onReply: (reply: HelloReply) => void,
): Promise<HelloReply> =>
  new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason as Error);
    const onAbort = (): void => reject(signal.reason as Error);
    signal.addEventListener('abort', onAbort, { once: true });
    void connection.closed.then((reason) => {
      // Of a migration that is interrupted for days each attempt would leave its connection to the signal.
      signal.removeEventListener('abort', onAbort);
      reject(reason.code === 'INVALID_ARGUMENT' ? strange(connection, reason) : reason);
    });
    connection.onFrame((frame: Frame) => {
      if (frame.body !== 'helloReply')
        throw new MigrateFsError('INVALID_ARGUMENT', `${frame.body} frame instead of a hello reply`);
      signal.removeEventListener('abort', onAbort);
      const reply = frame.helloReply;
      const version = reply.protocolVersion;
      if (version !== PROTOCOL_VERSION && !reply.failure)
        return reject(
          new MigrateFsError(
            'FAILED_PRECONDITION',
            `${connection.remote} speaks protocol version ${version}, this daemon ${PROTOCOL_VERSION}: run the same release on both hosts`,
          ),
        );
      onReply(reply);
      resolve(reply);
    });
    connection.send({ hello: { ...hello, protocolVersion: PROTOCOL_VERSION } });
  });
