/**
 * Entry of the target's thread of one stream: receives, applies, acknowledges, one record after the other. Blocks in
 * recv(2), so it has no event loop to speak of; whoever shuts the socket down ends it.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { createBackingCalls } from '../../fs/backing-calls.js';
import { Errno, errnoName } from '../../fs/errno.js';
import { lastErrno, MSG_DONTWAIT, rawPwrite, recv, SHUT_RDWR, shutdown } from '../../fs/libc.js';
import { MigrateFsError, plainError } from '../../leaves/errors.js';
import { RecordReader } from '../../leaves/record-reader.js';
import type { StreamRecord } from '../../leaves/stream-record.js';
import { RECORD_KIND } from '../../leaves/stream-record.js';
import { MiB } from '../../leaves/units.js';
import type { FromTargetStream, TargetStreamSetup } from '../stream-messages.js';
import { BackingFile, backingError, errnoError } from './backing-file.js';
import { checkExtent } from './extent.js';
import { StreamCounters } from './stream-counters.js';
import { StreamReplies } from './stream-replies.js';
import { WantedFlushes } from './wanted-flushes.js';

/** Copied bytes that are applied before they are acknowledged, while more is there. */
const UNACKNOWLEDGED_MAX = 1 * MiB;

const setup = workerData as TargetStreamSetup;
const { fd, sendKey, receiveKey, images } = setup;
const calls = createBackingCalls();
const files = images.map((image) => {
  const file = new BackingFile(image.fd, calls);
  return { ...image, file, size: file.size() };
});
const counters = new StreamCounters(setup.counters);
const reader = new RecordReader(receiveKey);
const replies = new StreamReplies(setup.replies, fd, sendKey);
const flushes = new WantedFlushes(setup.flushes);
/** Number of the last record applied, and what has not been acknowledged. */
let applied = 0;
let acknowledged = 0;
let unacknowledgedBytes = 0;
let guestWaits = false;

const tell = (message: FromTargetStream): void => parentPort!.postMessage(message);

const writeAll = (file: number, data: Uint8Array, offset: number): void => {
  for (let done = 0; done < data.length; ) {
    const rest = done === 0 ? data : data.subarray(done);
    const written = rawPwrite(file, rest, rest.length, offset + done);
    if (written >= 0) done += written;
    else if (lastErrno() !== Errno.EINTR) throw errnoError(-lastErrno());
  }
};

const apply = (record: StreamRecord): void => {
  const { kind, image, offset, length, payload } = record;
  const target = files[image];
  if (!target) throw new MigrateFsError('INVALID_ARGUMENT', `image ${image} of ${files.length}`);
  checkExtent(offset, Math.max(length, payload.length));
  try {
    switch (kind) {
      case RECORD_KIND.data:
      case RECORD_KIND.mirror:
        writeAll(target.fd, payload, offset);
        break;
      case RECORD_KIND.hole:
        target.file.punch(offset, length);
        break;
      case RECORD_KIND.resize:
        target.file.resize(length);
        break;
      default:
        throw new MigrateFsError('INVALID_ARGUMENT', `record of kind ${kind} from a source`);
    }
  } catch (error) {
    if (error instanceof MigrateFsError && error.code === 'INVALID_ARGUMENT') throw error;
    tell({
      type: 'failed',
      error: plainError(backingError(`cannot change ${target.name} at ${offset}`, error)),
    });
    throw new MigrateFsError('ABORTED', `a change of ${target.name} did not take effect`);
  }
  const end = kind === RECORD_KIND.resize ? length : offset + payload.length;
  if (kind === RECORD_KIND.resize ? end !== target.size : end > target.size && payload.length > 0) {
    target.size = end;
    tell({ type: 'size', image, size: end });
  }
  counters.add(payload.length, kind === RECORD_KIND.mirror);
  unacknowledgedBytes += payload.length;
  guestWaits ||= kind === RECORD_KIND.mirror;
  applied = record.seq;
};

const acknowledge = (): boolean => {
  if (applied === acknowledged) return true;
  acknowledged = applied;
  unacknowledgedBytes = 0;
  guestWaits = false;
  return replies.send(RECORD_KIND.ack, 0, applied);
};

/** What came before it has been applied, and is acknowledged first: a write is settled before the flush that covers it. */
const flush = ({ image, seq }: StreamRecord): boolean => {
  if (!files[image]) throw new MigrateFsError('INVALID_ARGUMENT', `image ${image} of ${files.length}`);
  if (!acknowledge()) return false;
  applied = acknowledged = seq;
  flushes.want(image, seq);
  return true;
};

/** Why it ended. */
const run = (): string => {
  for (;;) {
    const space = reader.space();
    // Copies are acknowledged together, guests' writes at once.
    const pending = applied !== acknowledged;
    const count = recv(fd, space, space.length, pending ? MSG_DONTWAIT : 0);
    if (count === 0) return 'the source closed the stream';
    if (count < 0) {
      const errno = lastErrno();
      if (errno === Errno.EAGAIN && pending) {
        if (!acknowledge()) return 'acknowledging failed';
      } else if (errno !== Errno.EINTR) return errnoName(-errno);
      continue;
    }
    reader.received(count);
    for (let record = reader.next(); record; record = reader.next()) {
      if (record.seq <= applied)
        throw new MigrateFsError('INVALID_ARGUMENT', `record ${record.seq} after ${applied}`);
      if (record.kind === RECORD_KIND.sync) {
        if (!flush(record)) return 'acknowledging failed';
        continue;
      }
      apply(record);
      if (unacknowledgedBytes >= UNACKNOWLEDGED_MAX && !acknowledge()) return 'acknowledging failed';
    }
    if (guestWaits && !acknowledge()) return 'acknowledging failed';
  }
};

tell({ type: 'ready' });
let rejected = false;
let reason = '';
try {
  reason = run();
} catch (error) {
  if (!(error instanceof MigrateFsError)) throw error;
  reason = error.message;
  rejected = error.code !== 'ABORTED';
} finally {
  shutdown(fd, SHUT_RDWR);
  tell({ type: 'closed', reason, rejected });
}
