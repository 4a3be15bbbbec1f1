/** READ, WRITE, FSYNC, FALLOCATE, LSEEK and GETATTR of a handle: the requests that do I/O on a backing file. */
import { RECORD_HEAD_BYTES, RecordHead } from '../../leaves/stream-record.js';
import { Errno } from '../errno.js';
import type { ImageIo } from '../image-io.js';
import { ROUTED } from '../image-io.js';
import { NO_SLOT } from '../image-registry.js';
import type { ImageSlot, ImageTable } from '../image-table.js';
import {
  close,
  fdatasync,
  fsync,
  lastErrno,
  lseek,
  O_DIRECT,
  O_RDONLY,
  openAgain,
  preadTo,
  readWhole,
} from '../libc.js';
import type { LaneRequest } from '../mirror-lane.js';
import { ANSWERED_LATER } from '../mirror-lane.js';
import type { ReplyToken, RoutedRequest } from '../participant.js';
import { StatBuffer } from '../stat-buffer.js';
import { alignedCopy, PAGE_BYTES } from './aligned-memory.js';
import { putAttributesReply, VALID_SECONDS } from './attributes.js';
import type { HandleTable } from './handle-table.js';
import { HANDLE_ODIRECT, HANDLE_SYNCS } from './handle-table.js';
import { dropPrivilegeBits } from './privilege-bits.js';
import {
  FSYNC_DATASYNC,
  Opcode,
  putU64,
  REQUEST_DSYNC,
  REQUEST_SYNC,
  u64,
  WRITE_CACHE,
  WRITE_KILL_SUIDGID,
  WRITE_PAYLOAD_OFFSET,
} from './protocol.js';
import type { ReplyBuffer } from './reply.js';
import { NO_REPLY } from './reply.js';

/** A request in memory: `words` is its beginning, `payload` what follows the header of a WRITE, page aligned. */
export interface DataRequest extends LaneRequest {
  /** The reply goes where the request was read. */
  readonly fuseFd: number;
  readonly words: Uint32Array;
  readonly payload: Uint8Array;
}

export interface DataOperationsParts {
  readonly table: ImageTable;
  readonly handles: HandleTable;
  readonly io: ImageIo;
  readonly reply: ReplyBuffer;
  /** Hands a change of a routed image to the replica thread. */
  readonly route: (request: RoutedRequest, transfer: ArrayBuffer[]) => void;
}

/** `request` begins at a multiple of eight bytes. */
export const dataRequest = (request: Uint8Array, fuseFd: number): DataRequest => {
  const recordAt = WRITE_PAYLOAD_OFFSET - RECORD_HEAD_BYTES;
  return {
    fuseFd,
    words: new Uint32Array(request.buffer, request.byteOffset, WRITE_PAYLOAD_OFFSET / 4),
    payload: request.subarray(WRITE_PAYLOAD_OFFSET),
    head: new RecordHead(request.buffer, request.byteOffset + recordAt),
    record: request.subarray(recordAt),
  };
};

/** The handle that a data request is about. */
export const handleOf = (words: Uint32Array): number =>
  words[1] === Opcode.GETATTR ? words[12]! : words[10]!;

/** Whether the request may take seconds although nothing is wrong. */
export const isFlush = (opcode: number): boolean => opcode === Opcode.FSYNC || opcode === Opcode.FALLOCATE;

/**
 * Of a request that was ended before it was performed, because its caller was killed: the file may be closed since, and the
 * handle free or another file's. The kernel does not wait for this answer.
 */
const FORGOTTEN = -Errno.EBADF;

/** What a write asks to be durable before it is answered: no FSYNC follows one that bypasses the page cache. */
const syncOf = (flags: number): 'data' | 'all' | undefined =>
  (flags & REQUEST_DSYNC) === 0 ? undefined : (flags & REQUEST_SYNC) === 0 ? 'data' : 'all';

/** Whether the caller's descriptor is without O_DIRECT now. */
const isBuffered = (words: Uint32Array): boolean => (words[18]! & O_DIRECT) === 0;

/** Whether these are pages that the kernel writes back: it looks at the error only, not at how much was written. */
const writesBack = (words: Uint32Array): boolean => (words[15]! & WRITE_CACHE) !== 0;

const kernelToken = ({ fuseFd, words }: DataRequest): ReplyToken => ({
  kind: 'kernel',
  fuseFd,
  unique: (BigInt(words[3]!) << 32n) | BigInt(words[2]!),
  caller: words[8]!,
});

/** Performs data requests, one at a time, in the thread that calls. */
export class DataOperations {
  readonly #parts: DataOperationsParts;
  readonly #stat = new StatBuffer();

  constructor(parts: DataOperationsParts) {
    this.#parts = parts;
  }

  /** Length of the reply's body, -errno, or `NO_REPLY`. */
  serve(request: DataRequest): number {
    switch (request.words[1]) {
      case Opcode.READ:
        return this.#read(request.words);
      case Opcode.WRITE:
        return this.#write(request);
      case Opcode.FSYNC:
        return this.#fsync(request);
      case Opcode.FALLOCATE:
        return this.#fallocate(request);
      case Opcode.LSEEK:
        return this.#seek(request.words);
      case Opcode.GETATTR:
        return this.#getAttributes(request.words);
      default:
        return -Errno.ENOSYS;
    }
  }

  #read(words: Uint32Array): number {
    const { handles, reply } = this.#parts;
    const offset = u64(words, 12);
    if (offset > Number.MAX_SAFE_INTEGER) return -Errno.EOVERFLOW;
    const handle = words[10]!;
    const wanted = words[14]!;
    const direct = (handles.kinds(handle) & HANDLE_ODIRECT) !== 0;
    const { bodyAddress } = direct ? reply.aligned() : reply.staggered();
    const length = preadTo(handles.fd(handle), bodyAddress, wanted, offset);
    if (length === wanted || length === 0) return length;
    if (length > 0) return this.#readOn(handle, direct, bodyAddress, wanted, offset, length);
    const error = -lastErrno();
    const unaligned = error === -Errno.EINVAL && direct && isBuffered(words);
    return unaligned ? this.#readBuffered(handle, bodyAddress, wanted, offset) : error;
  }

  /**
   * Behind the `length` bytes that were there. The kernel takes what is short for the end of the file; but it is short
   * before what cannot be read, too, of which only the next call tells.
   */
  #readOn(
    handle: number,
    direct: boolean,
    address: number,
    wanted: number,
    offset: number,
    length: number,
  ): number {
    const [at, left, from] = [address + length, wanted - length, offset + length];
    let rest = readWhole(this.#parts.handles.fd(handle), at, left, from);
    // The end of a file is not aligned, as a rule.
    if (rest === -Errno.EINVAL && direct) rest = this.#readBuffered(handle, at, left, from);
    return rest < 0 ? rest : length + rest;
  }

  #readBuffered(handle: number, address: number, length: number, offset: number): number {
    const buffered = openAgain(this.#parts.handles.fd(handle), O_RDONLY);
    if (buffered < 0) return buffered;
    const result = readWhole(buffered, address, length, offset);
    close(buffered);
    return result;
  }

  #write(request: DataRequest): number {
    const { handles, io, reply } = this.#parts;
    const { words, payload } = request;
    const handle = words[10]!;
    const kinds = handles.kinds(handle);
    const fd = handles.fd(handle);
    const slot = handles.slot(handle);
    const length = words[14]!;
    const flags = words[15]!;
    const offset = u64(words, 12);
    if ((flags & WRITE_KILL_SUIDGID) !== 0 && handles.privileged(slot)) dropPrivilegeBits(fd, this.#stat);
    if (offset > Number.MAX_SAFE_INTEGER) return -Errno.EFBIG;
    const sync = syncOf(words[18]!);
    const whole = writesBack(words);
    const unaligned = (kinds & HANDLE_ODIRECT) !== 0 && (whole || isBuffered(words));
    // Whoever answers a lane's write cannot try one again that is refused for its alignment.
    const forLane = unaligned ? undefined : request;
    let written = sync
      ? this.#writeDurably(request, handle, fd, sync, forLane)
      : io.write(slot, fd, payload, length, offset, forLane, whole);
    if (written === ANSWERED_LATER) return NO_REPLY;
    if (written === -Errno.EINVAL && unaligned) written = this.#writeBuffered(request, handle, sync);
    if (written === ROUTED)
      return this.#routeWrite(
        request,
        slot,
        fd,
        unaligned && (offset % PAGE_BYTES) + (length % PAGE_BYTES) > 0,
        sync,
      );
    if (written < 0) return written;
    reply.words[0] = written;
    reply.words[1] = 0;
    return 8;
  }

  #writeDurably(
    { words, payload }: DataRequest,
    handle: number,
    fd: number,
    sync: 'data' | 'all',
    forLane: DataRequest | undefined,
  ): number {
    const { handles, io } = this.#parts;
    const flush = (): number => {
      // Another descriptor than the handle's does not sync by itself.
      if (fd === handles.fd(handle) && (handles.kinds(handle) & HANDLE_SYNCS) !== 0) return 0;
      return sync === 'data' ? fdatasync(fd) : fsync(fd);
    };
    const [length, offset, whole] = [words[14]!, u64(words, 12), writesBack(words)];
    return io.writeDurably(handles.slot(handle), fd, payload, length, offset, forLane, flush, whole);
  }

  /**
   * The kernel writes mapped pages back through any handle, and whoever has taken O_DIRECT off its descriptor (fcntl(2)) gives
   * what it likes: what is not aligned would not pass the backing one, which has it still.
   */
  #writeBuffered(request: DataRequest, handle: number, sync: 'data' | 'all' | undefined): number {
    const { handles, io } = this.#parts;
    const { words, payload } = request;
    const buffered = openAgain(handles.fd(handle));
    if (buffered < 0) return buffered;
    const [length, offset, whole] = [words[14]!, u64(words, 12), writesBack(words)];
    const written = sync
      ? this.#writeDurably(request, handle, buffered, sync, undefined)
      : io.write(handles.slot(handle), buffered, payload, length, offset, undefined, whole);
    close(buffered);
    return written;
  }

  /** `buffered`: through a descriptor of this request alone, as the handle's would not take it. */
  #routeWrite(
    request: DataRequest,
    slot: ImageSlot,
    handleFd: number,
    buffered: boolean,
    sync: 'data' | 'all' | undefined,
  ): number {
    const { words } = request;
    const fd = buffered ? openAgain(handleFd) : handleFd;
    if (fd < 0) return fd;
    const payload = alignedCopy(request.payload.subarray(0, words[14]!));
    const reply = kernelToken(request);
    const offset = u64(words, 12);
    const whole = writesBack(words);
    return this.#route(
      { op: 'write', slot, fd, reply, offset, payload, whole, ownFd: buffered, ...(sync && { sync }) },
      [payload.buffer],
    );
  }

  #fsync(request: DataRequest): number {
    const { handles, io } = this.#parts;
    const { words } = request;
    const slot = handles.slot(words[10]!);
    const fd = handles.fd(words[10]!);
    if (slot === NO_SLOT) return FORGOTTEN;
    const datasync = (words[12]! & FSYNC_DATASYNC) !== 0;
    const result = io.fsync(slot, fd, datasync, request);
    if (result === ANSWERED_LATER) return NO_REPLY;
    return result === ROUTED
      ? this.#route({ op: 'fsync', slot, fd, reply: kernelToken(request), datasync })
      : result;
  }

  #fallocate(request: DataRequest): number {
    const { handles, io } = this.#parts;
    const { words } = request;
    const fd = handles.fd(words[10]!);
    const slot = handles.slot(words[10]!);
    const offset = u64(words, 12);
    const length = u64(words, 14);
    const mode = words[16]!;
    if (offset > Number.MAX_SAFE_INTEGER || length > Number.MAX_SAFE_INTEGER) return -Errno.EFBIG;
    // The kernel does not tell, as it does of a WRITE, whether its caller may keep them.
    if (words[6] !== 0 && handles.privileged(slot)) dropPrivilegeBits(fd, this.#stat);
    const result = io.fallocate(slot, fd, mode, offset, length);
    return result === ROUTED
      ? this.#route({ op: 'fallocate', slot, fd, reply: kernelToken(request), mode, offset, length })
      : result;
  }

  #seek(words: Uint32Array): number {
    const { handles, reply } = this.#parts;
    const offset = lseek(handles.fd(words[10]!), u64(words, 12), words[14]!);
    if (offset < 0) return offset;
    if (offset > Number.MAX_SAFE_INTEGER) return -Errno.EOVERFLOW;
    putU64(reply.words, 0, offset);
    return 8;
  }

  #getAttributes(words: Uint32Array): number {
    const { handles, table, reply } = this.#parts;
    const slot = handles.slot(words[12]!);
    if (slot === NO_SLOT) return FORGOTTEN;
    const result = this.#stat.ofDescriptor(handles.fd(words[12]!));
    if (result < 0) return result;
    const valid = table.uncached(slot) ? 0 : VALID_SECONDS;
    return putAttributesReply(reply.words, 0, this.#stat, valid);
  }

  #route(request: RoutedRequest, transfer: ArrayBuffer[] = []): number {
    this.#parts.route(request, transfer);
    return NO_REPLY;
  }
}
