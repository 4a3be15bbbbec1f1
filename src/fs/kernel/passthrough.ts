import { ioctl } from '../libc.js';
import type { Node } from './node-table.js';

/** _IOW(229, 1, struct fuse_backing_map) and _IOW(229, 2, uint32_t) of include/uapi/linux/fuse.h. */
const FUSE_DEV_IOC_BACKING_OPEN = 0x4010e501;
const FUSE_DEV_IOC_BACKING_CLOSE = 0x4004e502;

/**
 * Reads that the kernel serves from the backing file itself, without the daemon (FUSE_PASSTHROUGH, Linux 6.9).
 *
 * A write past the daemon would escape dirty tracking, limits and fences, and so would a writable mapping of any
 * handle of an inode that is open so (fs/fuse/iomode.c demands that all its handles are). So it is for files without
 * a write permission, and while one is open so, it cannot be opened for writing by root either.
 */
export class Passthrough {
  readonly #fuseFd: number;
  readonly #onRefused: (errno: number) => void;
  readonly #enabled: boolean;
  #refused = false;

  /** `onRefused`: the kernel does not take a backing file (on a stacked file system, say); called once. */
  constructor(fuseFd: number, enabled: boolean, onRefused: (errno: number) => void) {
    this.#fuseFd = fuseFd;
    this.#enabled = enabled;
    this.#onRefused = onRefused;
  }

  /** Counts one more handle of `node`, whose backing descriptor is `fd`, as passed; false: serve it otherwise. */
  open(node: Node, fd: number): boolean {
    if (!this.#enabled || node.cachedHandles + node.directHandles > 0) return false;
    if (node.passedHandles === 0) {
      const id = ioctl(this.#fuseFd, FUSE_DEV_IOC_BACKING_OPEN, Int32Array.of(fd, 0, 0, 0));
      if (id <= 0) {
        if (!this.#refused) this.#onRefused(-id);
        this.#refused = true;
        return false;
      }
      node.backingId = id;
    }
    node.passedHandles++;
    return true;
  }

  close(node: Node): void {
    if (--node.passedHandles > 0) return;
    ioctl(this.#fuseFd, FUSE_DEV_IOC_BACKING_CLOSE, Uint32Array.of(node.backingId));
    node.backingId = 0;
  }
}
