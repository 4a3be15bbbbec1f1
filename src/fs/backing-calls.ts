import { Errno } from './errno.js';
import { fallocate, fdatasync, fsync, ftruncate, lastErrno, rawPwrite } from './libc.js';
import { StatBuffer } from './stat-buffer.js';

/** Synchronous system calls on a backing descriptor; each returns what the call returns, or -errno. */
export interface BackingCalls {
  pwrite(fd: number, data: Uint8Array, length: number, offset: number): number;
  fallocate(fd: number, mode: number, offset: number, length: number): number;
  ftruncate(fd: number, size: number): number;
  fsync(fd: number, datasync: boolean): number;
  fileSize(fd: number): number;
}

/** Backing descriptors through libc; usable in every thread. */
export const createBackingCalls = (): BackingCalls => {
  const stat = new StatBuffer();
  return {
    pwrite: (fd, data, length, offset) => {
      const written = rawPwrite(fd, data, length, offset);
      return written < 0 ? -lastErrno() : written;
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
