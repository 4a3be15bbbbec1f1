import { Errno } from './errno.js';
import { fallocate, fdatasync, fsync, ftruncate, lastErrno, rawPwrite } from './libc.js';
import { StatBuffer } from './stat-buffer.js';

/** Synchronous system calls on a backing descriptor; each returns what the call returns, or -errno. */
export interface BackingCalls {
  /** `whole`: a short write will not do, the result is `length` or what stopped it. */
  pwrite(fd: number, data: Uint8Array, length: number, offset: number, whole?: boolean): number;
  fallocate(fd: number, mode: number, offset: number, length: number): number;
  ftruncate(fd: number, size: number): number;
  fsync(fd: number, datasync: boolean): number;
  fileSize(fd: number): number;
}

const writeRest = (fd: number, data: Uint8Array, length: number, offset: number, written: number): number => {
  for (let done = written; done < length; ) {
    const count = rawPwrite(fd, data.subarray(done), length - done, offset + done);
    if (count <= 0) return count === 0 ? -Errno.EIO : -lastErrno();
    done += count;
  }
  return length;
};

/** Backing descriptors through libc; usable in every thread. */
export const createBackingCalls = (): BackingCalls => {
  const stat = new StatBuffer();
  return {
    pwrite: (fd, data, length, offset, whole = false) => {
      const written = rawPwrite(fd, data, length, offset);
      if (written < 0) return -lastErrno();
      return whole && written < length ? writeRest(fd, data, length, offset, written) : written;
    },
    fallocate: (fd, mode, offset, length) => {
      for (;;) {
        const result = fallocate(fd, mode, offset, length);
        if (result !== -Errno.EINTR) return result;
      }
    },
    ftruncate,
    fsync: (fd, datasync) => (datasync ? fdatasync(fd) : fsync(fd)),
    fileSize: (fd) => {
      const result = stat.ofDescriptor(fd);
      return result < 0 ? result : stat.size;
    },
  };
};
