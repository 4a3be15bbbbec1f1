/**
 * One data worker: reads requests from its own /dev/fuse descriptor and serves those that move data, synchronously;
 * everything else goes to the owner of the namespace. Blocks in read(2), so it has no event loop to speak of.
 */
import type { MessagePort } from 'node:worker_threads';
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { createBackingCalls } from '../backing-calls.js';
import { Errno } from '../errno.js';
import { ImageIo, ROUTED } from '../image-io.js';
import type { ImageSlot } from '../image-table.js';
import { GraceCounters, ImageTable } from '../image-table.js';
import {
  AT_FDCWD,
  close,
  descriptorPath,
  lastErrno,
  lseek,
  O_CLOEXEC,
  O_WRONLY,
  openat,
  rawPread,
  rawRead,
} from '../libc.js';
import type { BitmapAnnouncement, ReplyToken, RoutedRequest } from '../participant.js';
import { StatBuffer } from '../stat-buffer.js';
import { alignedBytes, alignedCopy, PAGE_BYTES } from './aligned-memory.js';
import { putAttributesReply, VALID_SECONDS } from './attributes.js';
import { HANDLE_ODIRECT, HandleTable } from './handle-table.js';
import { dropPrivilegeBits } from './privilege-bits.js';
import {
  BATCH_FORGET_HEADER_BYTES,
  FORGET_ONE_BYTES,
  FSYNC_DATASYNC,
  GETATTR_FH,
  Opcode,
  putU64,
  TRANSFER_BYTES_MAX,
  u64,
  WRITE_CACHE,
  WRITE_KILL_SUIDGID,
  WRITE_PAYLOAD_OFFSET,
} from './protocol.js';
import { NO_REPLY, ReplyBuffer } from './reply.js';
import { RequestRing, RING_RECORD_BYTES_MAX } from './request-ring.js';
import type { DataWorkerSetup } from './thread-messages.js';
import { OWNER_WAKE_REQUEST, StopFlag } from './thread-messages.js';

const RECEIVE_BYTES = WRITE_PAYLOAD_OFFSET + TRANSFER_BYTES_MAX + PAGE_BYTES;
/** Entries of a BATCH_FORGET handed to the owner at once. */
const FORGETS_PER_RECORD = 2048;
const RING_WAIT_MS = 100;

const setup = workerData as DataWorkerSetup;
const { fuseFd, port } = setup;
const table = new ImageTable(setup.images);
const handles = new HandleTable(setup.handles);
const ring = new RequestRing(setup.ring);
const ownerWake = new Int32Array(setup.ownerWake);
const stop = new StopFlag(setup.stop);

const request = alignedBytes(RECEIVE_BYTES, WRITE_PAYLOAD_OFFSET);
const words = new Uint32Array(request.buffer, request.byteOffset, WRITE_PAYLOAD_OFFSET / 4);
const payload = request.subarray(WRITE_PAYLOAD_OFFSET);
const reply = new ReplyBuffer(TRANSFER_BYTES_MAX);
const stat = new StatBuffer();

const drainPort = (port: MessagePort, take: (announcement: BitmapAnnouncement) => void): void => {
  for (let got = receiveMessageOnPort(port); got; got = receiveMessageOnPort(port))
    take(got.message as BitmapAnnouncement);
};
const io = new ImageIo(table, new GraceCounters(setup.grace), setup.participant, createBackingCalls(), () =>
  drainPort(port, (announcement) => io.announce(announcement)),
);
const posted = new Int32Array(setup.posted);
let postsSeen = 0;

/** A worker that never serves a tracked write would keep every bitmap that was ever announced. */
const takeAnnouncements = (): void => {
  const posts = Atomics.load(posted, 0);
  if (posts === postsSeen) return;
  postsSeen = posts;
  drainPort(port, (announcement) => io.announce(announcement));
};

const kernelToken = (): ReplyToken => ({
  kind: 'kernel',
  fuseFd,
  unique: (BigInt(words[3]!) << 32n) | BigInt(words[2]!),
});
const route = (routed: RoutedRequest, transfer: ArrayBuffer[] = []): number => {
  port.postMessage(routed, transfer);
  return NO_REPLY;
};

const read = (): number => {
  const length = rawPread(handles.fd(words[10]!), reply.body, words[14]!, u64(words, 12));
  return length < 0 ? -lastErrno() : length;
};

const openBuffered = (fd: number): number => openat(AT_FDCWD, descriptorPath(fd), O_WRONLY | O_CLOEXEC, 0);

/** The kernel writes mapped pages back through any handle; an unaligned tail would not pass O_DIRECT. */
const writeBuffered = (slot: ImageSlot, fd: number, length: number, offset: number): number => {
  const buffered = openBuffered(fd);
  if (buffered < 0) return buffered;
  const written = io.write(slot, buffered, payload, length, offset);
  close(buffered);
  return written;
};

/** `buffered`: through a descriptor of this request alone, as the handle's would not take it. */
const routeWrite = (
  slot: ImageSlot,
  handleFd: number,
  length: number,
  offset: number,
  buffered: boolean,
): number => {
  const fd = buffered ? openBuffered(handleFd) : handleFd;
  if (fd < 0) return fd;
  const copy = alignedCopy(payload.subarray(0, length));
  const token = kernelToken();
  return route({ op: 'write', slot, fd, reply: token, offset, payload: copy, ownFd: buffered }, [
    copy.buffer,
  ]);
};

const write = (): number => {
  const handle = words[10]!;
  const fd = handles.fd(handle);
  const slot = handles.slot(handle);
  const length = words[14]!;
  const flags = words[15]!;
  const offset = u64(words, 12);
  if ((flags & WRITE_KILL_SUIDGID) !== 0 && handles.privileged(slot)) dropPrivilegeBits(fd, stat);
  const mappedDirect = (flags & WRITE_CACHE) !== 0 && (handles.kinds(handle) & HANDLE_ODIRECT) !== 0;
  let written = io.write(slot, fd, payload, length, offset);
  if (written === -Errno.EINVAL && mappedDirect) written = writeBuffered(slot, fd, length, offset);
  if (written === ROUTED)
    return routeWrite(
      slot,
      fd,
      length,
      offset,
      mappedDirect && (offset % PAGE_BYTES) + (length % PAGE_BYTES) > 0,
    );
  if (written < 0) return written;
  reply.words[0] = written;
  reply.words[1] = 0;
  return 8;
};

const fsync = (): number => {
  const fd = handles.fd(words[10]!);
  const slot = handles.slot(words[10]!);
  const datasync = (words[12]! & FSYNC_DATASYNC) !== 0;
  const result = io.fsync(slot, fd, datasync);
  return result === ROUTED ? route({ op: 'fsync', slot, fd, reply: kernelToken(), datasync }) : result;
};

const fallocate = (): number => {
  const fd = handles.fd(words[10]!);
  const slot = handles.slot(words[10]!);
  const offset = u64(words, 12);
  const length = u64(words, 14);
  const mode = words[16]!;
  const result = io.fallocate(slot, fd, mode, offset, length);
  return result === ROUTED
    ? route({ op: 'fallocate', slot, fd, reply: kernelToken(), mode, offset, length })
    : result;
};

const seek = (): number => {
  const offset = lseek(handles.fd(words[10]!), u64(words, 12), words[14]!);
  if (offset < 0) return offset;
  putU64(reply.words, 0, offset);
  return 8;
};

const getAttributesOfHandle = (): number => {
  const handle = words[12]!;
  const result = stat.ofDescriptor(handles.fd(handle));
  if (result < 0) return result;
  const valid = table.uncached(handles.slot(handle)) ? 0 : VALID_SECONDS;
  return putAttributesReply(reply.words, 0, stat, valid);
};

/** Hands `length` bytes of `record` to the owner. A full ring pushes back: this worker takes no further request. */
const forward = (record: Uint8Array, length: number): number => {
  while (!ring.push(record, length)) {
    if (stop.raised) return NO_REPLY;
    ring.waitForRoom(RING_WAIT_MS);
  }
  Atomics.add(ownerWake, 0, OWNER_WAKE_REQUEST);
  Atomics.notify(ownerWake, 0);
  return NO_REPLY;
};

/** Splits what would not fit the ring. */
const forwardForgets = (): number => {
  const count = words[10]!;
  for (let first = 0; first < count; first += FORGETS_PER_RECORD) {
    const taken = Math.min(count - first, FORGETS_PER_RECORD);
    const start = BATCH_FORGET_HEADER_BYTES + first * FORGET_ONE_BYTES;
    request.copyWithin(BATCH_FORGET_HEADER_BYTES, start, start + taken * FORGET_ONE_BYTES);
    words[10] = taken;
    forward(request, BATCH_FORGET_HEADER_BYTES + taken * FORGET_ONE_BYTES);
  }
  return NO_REPLY;
};

/** Length of the reply's body, -errno, or `NO_REPLY`. */
const serve = (length: number): number => {
  switch (words[1]) {
    case Opcode.READ:
      return read();
    case Opcode.WRITE:
      return write();
    case Opcode.FSYNC:
      return fsync();
    case Opcode.FALLOCATE:
      return fallocate();
    case Opcode.LSEEK:
      return seek();
    case Opcode.GETATTR:
      return (words[10]! & GETATTR_FH) !== 0 ? getAttributesOfHandle() : forward(request, length);
    case Opcode.FLUSH:
      return -Errno.ENOSYS; // nothing to do at close, and the kernel stops asking
    case Opcode.BATCH_FORGET:
      return forwardForgets();
    case Opcode.INTERRUPT:
      return NO_REPLY; // no request waits here for long, and those at the replica thread must run to their end
    default:
      return length > RING_RECORD_BYTES_MAX ? -Errno.ENOSYS : forward(request, length);
  }
};

const run = (): void => {
  parentPort?.postMessage({ type: 'ready' });
  for (;;) {
    const length = rawRead(fuseFd, request, RECEIVE_BYTES);
    if (length >= 0) {
      takeAnnouncements();
      const answer = serve(length);
      if (answer !== NO_REPLY) reply.send(fuseFd, words[2]!, words[3]!, answer);
      continue;
    }
    const errno = lastErrno();
    if (errno === Errno.ENODEV || errno === Errno.ECONNABORTED) return;
    if (errno !== Errno.EINTR && errno !== Errno.EAGAIN && errno !== Errno.ENOENT)
      throw new Error(`reading /dev/fuse: errno ${errno}`);
  }
};

run();
