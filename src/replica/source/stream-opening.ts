import { MigrateFsError, plainError } from '../../leaves/errors.js';
import { millis } from '../../leaves/units.js';
import type { PeerConnection } from '../wire/peer-connection.js';
import type { Log, SourceEnvironment } from './environment.js';
import type { ImageGroup } from './image-group.js';
import type { SourceWire } from './source-wire.js';

/** Guests and the migration wait meanwhile. */
const OPENING_MAX = millis(2_000);

export interface StreamOpening {
  readonly environment: Pick<SourceEnvironment, 'clock' | 'lanes' | 'openStream'>;
  readonly wire: SourceWire;
  readonly group: ImageGroup;
  /** Data address of the target. */
  readonly target: string;
  readonly migrationId: string;
  readonly log: Log;
}

/**
 * Opens the stream beside a connection that the wire is attached to. Without one everything goes over the connection, so
 * a stream that cannot be opened is no error. Rejects with the signal's reason.
 */
export const openStreamBeside = async (
  connection: PeerConnection,
  token: Uint8Array | undefined,
  { environment, wire, group, target, migrationId, log }: StreamOpening,
  signal: AbortSignal,
): Promise<void> => {
  if (!environment.openStream || !token || token.length === 0) return;
  const late = new AbortController();
  const forget = environment.clock.after(OPENING_MAX, () =>
    late.abort(new MigrateFsError('UNAVAILABLE', `no stream to ${target} within ${OPENING_MAX} ms`)),
  );
  try {
    const either = AbortSignal.any([signal, late.signal]);
    const link = await environment.openStream(target, { migrationId, token }, either);
    void group.using(link.ended);
    if (wire.isOver(connection) && !signal.aborted) wire.attachStream(link);
    else link.close();
    if (environment.lanes && !link.hasLane)
      log(
        'warn',
        'the send buffer of the stream is too small, the mirror is slower: give CAP_NET_ADMIN, or raise net.core.wmem_max',
        {},
      );
  } catch (error) {
    signal.throwIfAborted();
    log('warn', 'no stream beside the connection: copies and the mirror are slower', {
      ...plainError(error),
    });
  } finally {
    forget();
  }
};
