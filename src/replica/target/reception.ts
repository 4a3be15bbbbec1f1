import { MigrateFsError } from '../../leaves/errors.js';
import type { Bytes } from '../../leaves/units.js';
import { bytes, MiB } from '../../leaves/units.js';
import { failureFor } from '../wire/failure.js';
import type { Frame } from '../wire/frame.js';
import type { migratefs } from '../wire/generated/data.js';
import type { PayloadChunks } from '../wire/payload.js';
import { payloadLength } from '../wire/payload.js';
import type { PeerConnection } from '../wire/peer-connection.js';
import { AckBatch } from './ack-batch.js';
import { ALLOCATE_MODES } from './backing-file.js';
import { checkExtent } from './extent.js';
import type { TargetContext } from './target-context.js';
import type { Applied, TargetImage } from './target-image.js';
import { DIGEST_CHUNK } from './target-image.js';

/** Received and not yet applied; beyond it the connection is not read, down to half of it. */
const PENDING_BYTES_MAX: Bytes = bytes(16 * MiB);
const PENDING_FRAMES_MAX = 4096;
/** As many as a source asks for at a time. What one read(2) brought is handed over whole, and each digest takes a buffer. */
const DIGESTS_MAX = 8;

/** What a frame does beyond the images. Each may throw a `MigrateFsError` to have the connection closed. */
interface ReceptionEvents {
  /** Payload bytes arrived. */
  data(length: number, mirror: boolean): void;
  /** False: dropped without an answer, as the migration has ended here. */
  phase(phase: migratefs.data.Phase): boolean;
  offer(offer: migratefs.data.CutoverOffer): void;
  discard(): void;
  failed(failure: migratefs.data.Failure): void;
  /** Whether frames may touch the images (again asked for each); false: the frame is dropped without an answer. */
  admits(): boolean;
}

export interface Reception {
  readonly connection: PeerConnection;
}

/** Applies what arrives on `connection` to `images`, acknowledges it, and pushes back while too much is pending. */
export const receive = (
  connection: PeerConnection,
  images: readonly TargetImage[],
  context: Pick<TargetContext, 'log'>,
  events: ReceptionEvents,
): Reception => {
  const acks = new AckBatch((frame) => connection.send(frame));
  const closed = new AbortController();
  void connection.closed.then((reason) => closed.abort(reason));
  let pendingBytes = 0;
  let pendingFrames = 0;
  let digests = 0;
  const waitingDigests: (() => void)[] = [];

  const imageAt = (index: number): TargetImage => {
    const image = images[index];
    if (!image) throw new MigrateFsError('INVALID_ARGUMENT', `image ${index} of ${images.length}`);
    return image;
  };

  /** Counts a frame as pending until the returned function is called. */
  const begin = (length: number): (() => void) => {
    pendingBytes += length;
    pendingFrames++;
    return () => {
      pendingBytes -= length;
      pendingFrames--;
      if (pendingBytes <= PENDING_BYTES_MAX / 2 && pendingFrames <= PENDING_FRAMES_MAX / 2)
        connection.resume();
    };
  };

  /** The same for a change, with its outcome. */
  const pending = (seq: number, length: number): Applied => {
    const end = begin(length);
    return (failure) => {
      if (failure) {
        context.log('error', 'a change did not take effect on the replica', { error: failure.message });
        acks.fail(seq, failure);
      } else acks.add(seq);
      end();
    };
  };

  const pushBack = (): void => {
    if (pendingBytes > PENDING_BYTES_MAX || pendingFrames > PENDING_FRAMES_MAX) connection.pause();
  };

  const change = (frame: Frame, payload: PayloadChunks): void => {
    switch (frame.body) {
      case 'data': {
        const { image, offset, mirror } = frame.data;
        const length = payloadLength(payload);
        checkExtent(offset, length);
        events.data(length, mirror);
        imageAt(image).write(offset, payload, pending(frame.seq, length));
        break;
      }
      case 'hole': {
        const { image, offset, length } = frame.hole;
        checkExtent(offset, length);
        imageAt(image).punch(offset, length, pending(frame.seq, 0));
        break;
      }
      case 'resize':
        checkExtent(frame.resize.size, 0);
        imageAt(frame.resize.image).resize(frame.resize.size, pending(frame.seq, 0));
        break;
      case 'allocate': {
        const { image, mode, offset, length } = frame.allocate;
        checkExtent(offset, length);
        if ((mode & ~ALLOCATE_MODES) !== 0 || length === 0)
          throw new MigrateFsError('INVALID_ARGUMENT', `allocate of mode ${mode}, length ${length}`);
        imageAt(image).allocate(mode, offset, length, pending(frame.seq, 0));
        break;
      }
    }
  };

  const digest = async (seq: number, request: migratefs.data.DigestRequest): Promise<void> => {
    const { offset, length, acceptZero } = request;
    const end = begin(Math.min(length, DIGEST_CHUNK));
    if (digests >= DIGESTS_MAX) await new Promise<void>((go) => waitingDigests.push(go));
    else digests++;
    try {
      closed.signal.throwIfAborted();
      const { sha256, zero } = await imageAt(request.image).digest(offset, length, acceptZero, closed.signal);
      connection.send({ digestReply: { requestSeq: seq, sha256, zero } });
    } catch (error) {
      if (!closed.signal.aborted)
        connection.send({ digestReply: { requestSeq: seq, failure: failureFor(error) } });
    } finally {
      const next = waitingDigests.shift();
      if (next) next();
      else digests--;
      end();
    }
  };

  connection.onFrame((frame, payload) => {
    switch (frame.body) {
      case 'data':
      case 'hole':
      case 'resize':
      case 'allocate':
        if (events.admits()) change(frame, payload);
        return pushBack();
      case 'sync':
        if (events.admits()) imageAt(frame.sync.image).sync(pending(frame.seq, 0));
        return pushBack();
      case 'digestRequest':
        imageAt(frame.digestRequest.image);
        checkExtent(frame.digestRequest.offset, frame.digestRequest.length);
        if (events.admits()) void digest(frame.seq, frame.digestRequest);
        return pushBack();
      case 'phase':
        if (events.phase(frame.phase)) acks.add(frame.seq);
        return;
      case 'cutoverOffer':
        return events.offer(frame.cutoverOffer);
      case 'discard':
        return events.discard();
      case 'failure':
        return events.failed(frame.failure);
      default:
        throw new MigrateFsError('INVALID_ARGUMENT', `${frame.body} frame from a source`);
    }
  });
  connection.resume();
  return { connection };
};
