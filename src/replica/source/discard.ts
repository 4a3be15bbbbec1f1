import { pause } from '../../leaves/clock.js';
import { millis } from '../../leaves/units.js';
import type { migratefs } from '../wire/generated/data.js';
import { migratefs as proto } from '../wire/generated/data.js';
import type { PeerConnection } from '../wire/peer-connection.js';
import { Backoff } from './backoff.js';
import type { SourceEnvironment } from './environment.js';
import { greet } from './handshake.js';

/** The target is told to remove the replicas for this long, then it is left to an operator there. */
const DISCARD_SECONDS_MAX = 600;
const DISCARDED_TIMEOUT = millis(10_000);

/**
 * Has the target remove the replicas of a migration that is over: over the open connection, or a new one, again and
 * again with backoff. Never throws; logs when it gives up.
 */
export const discardReplicas = async (
  environment: SourceEnvironment,
  connection: PeerConnection | null,
  target: string,
  hello: migratefs.data.Hello.$Properties,
  signal: AbortSignal,
): Promise<void> => {
  const { clock, log, random } = environment;
  const migration = hello.migrationId;
  if (connection && (await askToDiscard(environment, connection))) return;
  const backoff = new Backoff(random);
  const givesUp = clock.now() + DISCARD_SECONDS_MAX * 1000;
  while (clock.now() < givesUp && !signal.aborted) {
    try {
      const fresh = await environment.connect(target, signal);
      try {
        const purpose = proto.data.Hello.Purpose.DISCARD;
        let discarded: Promise<boolean> | undefined;
        const reply = await greet(fresh, { ...hello, purpose }, signal, () => {
          discarded = untilDiscarded(environment, fresh);
        });
        if (reply.failure?.code === 'NOT_FOUND' || (!reply.failure && (await discarded))) return;
        log('debug', 'target did not discard', { migration, failure: reply.failure?.message });
      } finally {
        fresh.close();
      }
    } catch (error) {
      log('debug', 'cannot reach the target to discard', { migration, error: (error as Error).message });
    }
    await pause(clock, backoff.next(), signal).catch(() => {});
  }
  log('warn', 'replicas may be left on the target: cancel the migration there', { migration, target });
};

const askToDiscard = async (environment: SourceEnvironment, connection: PeerConnection): Promise<boolean> => {
  const answered = untilDiscarded(environment, connection);
  connection.send({ discard: {} });
  const discarded = await answered;
  connection.close();
  return discarded;
};

/** False: the connection ended, or nothing came in time. */
const untilDiscarded = ({ clock }: SourceEnvironment, connection: PeerConnection): Promise<boolean> =>
  new Promise((resolve) => {
    const forget = clock.after(DISCARDED_TIMEOUT, () => resolve(false));
    const settle = (discarded: boolean): void => {
      forget();
      resolve(discarded);
    };
    void connection.closed.then(() => settle(false));
    connection.onFrame((frame) => {
      if (frame.body === 'discarded') settle(true);
    });
  });
