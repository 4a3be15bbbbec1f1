import { MigrateFsError } from '../../leaves/errors.js';
import { Errno, errnoName } from '../errno.js';
import { read } from '../libc.js';
import {
  ARGUMENT_WORD,
  InitFlag,
  InitFlag2,
  Opcode,
  PROTOCOL_MAJOR,
  PROTOCOL_MINOR,
  PROTOCOL_MINOR_MIN,
  TRANSFER_BYTES_MAX,
  TRANSFER_PAGES_MAX,
} from './protocol.js';
import { ReplyBuffer } from './reply.js';

const REQUEST_BYTES_MAX = TRANSFER_BYTES_MAX + 8192;
const INIT_OUT_BYTES = 64;
/**
 * Asynchronous requests (readahead, direct AIO) the kernel may have under way, of all images together: those of an image
 * that does not answer must not be all of them.
 */
const BACKGROUND_REQUESTS_MAX = 16_384;
const CONGESTION_REQUESTS = 12_288;
const NANOSECONDS = 1;

/**
 * AUTO_INVAL_DATA is left out on purpose: with it every write through the mount makes the kernel ask for attributes
 * before the next read and then drop the whole file from its cache. Changes made behind the mount are noticed at
 * open instead (`content-stamp.ts`), and when the size changes.
 */
const WANTED =
  InitFlag.ASYNC_READ |
  InitFlag.BIG_WRITES |
  InitFlag.DONT_MASK |
  InitFlag.DO_READDIRPLUS |
  InitFlag.READDIRPLUS_AUTO |
  InitFlag.ASYNC_DIO |
  InitFlag.PARALLEL_DIROPS |
  InitFlag.POSIX_ACL |
  InitFlag.MAX_PAGES |
  InitFlag.HANDLE_KILLPRIV_V2 |
  InitFlag.SETXATTR_EXT |
  InitFlag.INIT_EXT;

/** Backing files may not be on a stacked file system (overlayfs) themselves. */
const STACK_DEPTH_MAX = 1;

export interface Session {
  readonly kernelMinor: number;
  /** The kernel can read backing files itself. */
  readonly passthrough: boolean;
  /** It can map files that are open without its page cache. */
  readonly mapsDirect: boolean;
}

/**
 * Reads the INIT request, the first on a fresh mount, and answers it. FAILED_PRECONDITION: the kernel is too old.
 */
export const initSession = (fuseFd: number, wantPassthrough: boolean): Session => {
  const request = new Uint32Array(REQUEST_BYTES_MAX / 4);
  const length = readRequest(fuseFd, new Uint8Array(request.buffer));
  const reply = new ReplyBuffer(INIT_OUT_BYTES);
  const [major, minor, readahead, flags, flags2] = request.subarray(ARGUMENT_WORD) as unknown as number[];
  if (length < 0 || request[1] !== Opcode.INIT)
    throw new MigrateFsError(
      'INTERNAL',
      `no INIT from the kernel: ${errnoName(length)}, opcode ${request[1]}`,
    );
  if (major !== PROTOCOL_MAJOR || minor! < PROTOCOL_MINOR_MIN)
    throw new MigrateFsError(
      'FAILED_PRECONDITION',
      `the kernel speaks FUSE ${major}.${minor}; ${PROTOCOL_MAJOR}.${PROTOCOL_MINOR_MIN} (Linux 5.14) or newer is needed`,
    );
  const out = reply.words;
  out.fill(0);
  out[0] = PROTOCOL_MAJOR;
  out[1] = PROTOCOL_MINOR;
  out[2] = readahead!;
  out[3] = WANTED & flags!;
  out[4] = BACKGROUND_REQUESTS_MAX | (CONGESTION_REQUESTS << 16);
  out[5] = TRANSFER_BYTES_MAX;
  out[6] = NANOSECONDS;
  out[7] = TRANSFER_PAGES_MAX;
  const offered = (flags! & InitFlag.INIT_EXT) === 0 ? 0 : flags2!;
  const flags2Out =
    offered & (InitFlag2.DIRECT_IO_ALLOW_MMAP | (wantPassthrough ? InitFlag2.PASSTHROUGH : 0));
  const passthrough = (flags2Out & InitFlag2.PASSTHROUGH) !== 0;
  out[8] = flags2Out;
  out[9] = passthrough ? STACK_DEPTH_MAX : 0;
  reply.send(fuseFd, request[2]!, request[3]!, INIT_OUT_BYTES);
  return { kernelMinor: minor!, passthrough, mapsDirect: (flags2Out & InitFlag2.DIRECT_IO_ALLOW_MMAP) !== 0 };
};

const readRequest = (fuseFd: number, buffer: Uint8Array): number => {
  for (;;) {
    const length = read(fuseFd, buffer, buffer.length);
    if (length !== -Errno.EINTR && length !== -Errno.EAGAIN) return length;
  }
};
