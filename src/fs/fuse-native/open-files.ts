import { Errno } from '../errno.js';
import type { ImageRegistry } from '../image-registry.js';
import { NO_SLOT } from '../image-registry.js';
import type { ImageSlot, ImageTable } from '../image-table.js';
import {
  close,
  O_APPEND,
  O_CLOEXEC,
  O_CREAT,
  O_DIRECT,
  O_EXCL,
  O_NOCTTY,
  O_NOFOLLOW,
  O_RDWR,
  O_TRUNC,
  openat,
  S_IFREG,
} from '../libc.js';
import { StatBuffer } from '../stat-buffer.js';
import type { BackingTree } from './backing-tree.js';

/** A file that the kernel has open. The backing descriptor is its handle. */
export interface OpenFile {
  readonly fd: number;
  readonly slot: ImageSlot;
}

/** The kernel deals with these itself. O_DIRECT: libfuse's buffers are not aligned for it. */
const STRIPPED = O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC | O_APPEND | O_DIRECT;

/** Open files by handle, and the image slots they hold. */
export class OpenFiles {
  readonly #tree: BackingTree;
  readonly #registry: ImageRegistry;
  readonly #table: ImageTable;
  readonly #files = new Map<number, OpenFile>();
  readonly #stat = new StatBuffer();

  constructor(tree: BackingTree, registry: ImageRegistry, table: ImageTable) {
    this.#tree = tree;
    this.#registry = registry;
    this.#table = table;
  }

  find(handle: number): OpenFile | undefined {
    return this.#files.get(handle);
  }

  /**
   * Opens and returns the handle, or -errno. `directIo` is called for an image that is being received, whose pages
   * must not be cached; where it returns false, the open is refused with EBUSY: stale pages would be corruption.
   */
  open(path: string, flags: number, directIo: () => boolean): number {
    const opened = this.openUnlisted(path, flags & ~STRIPPED);
    if (typeof opened === 'number') return opened;
    if (opened.slot !== NO_SLOT && this.#table.uncached(opened.slot) && !directIo()) {
      this.closeUnlisted(opened);
      return -Errno.EBUSY;
    }
    this.#files.set(opened.fd, opened);
    return opened.fd;
  }

  /** ESTALE: another process has made it since the kernel looked, which looks again, and asks whether the caller may have it. */
  create(path: string, mode: number): number {
    const opened = this.openUnlisted(path, O_RDWR | O_CREAT | O_EXCL, mode);
    if (typeof opened === 'number') return opened === -Errno.EEXIST ? -Errno.ESTALE : opened;
    this.#files.set(opened.fd, opened);
    return opened.fd;
  }

  close(handle: number): number {
    const file = this.#files.get(handle);
    if (!file) return -Errno.EBADF;
    this.#files.delete(handle);
    this.closeUnlisted(file);
    return 0;
  }

  closeAll(): void {
    for (const handle of [...this.#files.keys()]) this.close(handle);
  }

  /** For one operation on a path; the caller closes it. -errno when it cannot be opened. */
  openUnlisted(path: string, flags: number, mode = 0): OpenFile | number {
    const fd = this.#tree.at(path, (relative) =>
      openat(this.#tree.root, relative, flags | O_NOFOLLOW | O_CLOEXEC, mode),
    );
    if (fd < 0) return fd;
    const result = this.#stat.ofDescriptor(fd);
    const slot =
      result < 0 || this.#stat.type !== S_IFREG
        ? NO_SLOT
        : this.#registry.acquire(this.#stat.device, this.#stat.inode, fd);
    if (result >= 0 && (slot !== NO_SLOT || this.#stat.type !== S_IFREG)) return { fd, slot };
    close(fd);
    return result < 0 ? result : -Errno.ENFILE;
  }

  closeUnlisted({ fd, slot }: OpenFile): void {
    if (slot !== NO_SLOT) this.#registry.release(slot);
    close(fd);
  }
}
