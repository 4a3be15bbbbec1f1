/**
 * One data worker: reads requests from its own /dev/fuse descriptor and serves those that move data, synchronously;
 * everything else goes to the owner of the namespace, and what might not return soon to a lane. Blocks in read(2), so
 * it has no event loop to speak of.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { Errno } from '../errno.js';
import { HandOver } from '../image-table.js';
import { addressNumberOf, lastErrno, readTo } from '../libc.js';
import { alignedBytes, alignedCopy, PAGE_BYTES } from './aligned-memory.js';
import { dataRequest, handleOf, isFlush } from './data-operations.js';
import { DataParticipant } from './data-participant.js';
import {
  BATCH_FORGET_HEADER_BYTES,
  FORGET_ONE_BYTES,
  GETATTR_FH,
  Opcode,
  TRANSFER_BYTES_MAX,
  WRITE_PAYLOAD_OFFSET,
} from './protocol.js';
import { RequestRing, RING_RECORD_BYTES_MAX } from './request-ring.js';
import type { DataWorkerSetup, FromThread } from './thread-messages.js';
import { OWNER_WAKE_REQUEST, StopFlag } from './thread-messages.js';

const RECEIVE_BYTES = WRITE_PAYLOAD_OFFSET + TRANSFER_BYTES_MAX + PAGE_BYTES;
/** Entries of a BATCH_FORGET handed to the owner at once. */
const FORGETS_PER_RECORD = 2048;
const RING_WAIT_MS = 100;

const setup = workerData as DataWorkerSetup;
const { fuseFd } = setup;
const participant = new DataParticipant(setup);
const { table, handles, reply, mark } = participant;
const ring = new RequestRing(setup.ring);
const ownerWake = new Int32Array(setup.ownerWake);
const stop = new StopFlag(setup.stop);

const request = alignedBytes(RECEIVE_BYTES, WRITE_PAYLOAD_OFFSET);
/** `received` keeps the memory. */
const requestAddress = addressNumberOf(request);
const received = dataRequest(request, fuseFd);
const { words } = received;

const tell = (message: FromThread, transfer: ArrayBuffer[] = []): void =>
  parentPort!.postMessage(message, transfer);

/** Hands `length` bytes of `record` to the owner. A full ring pushes back: this worker takes no further request. */
const forward = (record: Uint8Array, length: number): void => {
  while (!ring.push(record, length)) {
    if (stop.raised) return;
    ring.waitForRoom(RING_WAIT_MS);
  }
  Atomics.add(ownerWake, 0, OWNER_WAKE_REQUEST);
  Atomics.notify(ownerWake, 0);
};

/** Splits what would not fit the ring. */
const forwardForgets = (): void => {
  const count = words[10]!;
  for (let first = 0; first < count; first += FORGETS_PER_RECORD) {
    const taken = Math.min(count - first, FORGETS_PER_RECORD);
    const start = BATCH_FORGET_HEADER_BYTES + first * FORGET_ONE_BYTES;
    request.copyWithin(BATCH_FORGET_HEADER_BYTES, start, start + taken * FORGET_ONE_BYTES);
    words[10] = taken;
    forward(request, BATCH_FORGET_HEADER_BYTES + taken * FORGET_ONE_BYTES);
  }
};

const handOver = (slot: number, length: number): void => {
  const copy = alignedCopy(request.subarray(0, Math.max(length, WRITE_PAYLOAD_OFFSET)), WRITE_PAYLOAD_OFFSET);
  tell({ type: 'hand-over', slot, fuseFd, request: copy }, [copy.buffer]);
};

/** False: this worker has been replaced. */
const data = (length: number): boolean => {
  const slot = handles.slot(handleOf(words));
  const flush = isFlush(words[1]!);
  if ((table.handOver(slot) & (flush ? HandOver.flush : HandOver.io)) !== 0) {
    handOver(slot, length);
    return true;
  }
  if (!flush) return participant.serve(received, slot);
  // May take seconds: never every worker at once.
  if (!mark.enterFlush()) {
    handOver(slot, length);
    return true;
  }
  const goOn = participant.serve(received, slot);
  mark.leaveFlush();
  return goOn;
};

const refuse = (errno: number): void => reply.send(fuseFd, words[2]!, words[3]!, -errno);

const interrupt = (): void =>
  tell({ type: 'interrupt', unique: (BigInt(words[11]!) << 32n) | BigInt(words[10]!) });

/** False: this worker has been replaced and must not take another request. */
const serve = (length: number): boolean => {
  switch (words[1]) {
    case Opcode.READ:
    case Opcode.WRITE:
    case Opcode.FSYNC:
    case Opcode.FALLOCATE:
    case Opcode.LSEEK:
      return data(length);
    case Opcode.GETATTR:
      if ((words[10]! & GETATTR_FH) !== 0) return data(length);
      forward(request, length);
      break;
    case Opcode.FLUSH:
      refuse(Errno.ENOSYS); // nothing to do at close, and the kernel stops asking
      break;
    case Opcode.BATCH_FORGET:
      forwardForgets();
      break;
    case Opcode.INTERRUPT:
      interrupt();
      break;
    default:
      if (length > RING_RECORD_BYTES_MAX) refuse(Errno.ENOSYS);
      else forward(request, length);
  }
  return true;
};

const run = (): void => {
  tell({ type: 'ready' });
  for (;;) {
    const length = readTo(fuseFd, requestAddress, RECEIVE_BYTES);
    if (length >= 0) {
      participant.takeAnnouncements();
      if (serve(length) && !mark.retired) continue;
      const { port } = participant;
      parentPort!.postMessage({ type: 'replaced', port } satisfies FromThread, [port]);
      return;
    }
    const errno = lastErrno();
    if (errno === Errno.ENODEV || errno === Errno.ECONNABORTED) return;
    if (errno !== Errno.EINTR && errno !== Errno.EAGAIN && errno !== Errno.ENOENT)
      throw new Error(`reading /dev/fuse: errno ${errno}`);
  }
};

run();
