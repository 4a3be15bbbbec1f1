import { IMAGE_RECORD_XATTR } from '../image-record.js';
import type { ImageRegistry } from '../image-registry.js';
import { close, cString, descriptorPath, O_CLOEXEC, O_NOFOLLOW, O_PATH, openat, S_IFREG } from '../libc.js';
import { StatBuffer } from '../stat-buffer.js';

/** What JavaScript puts where bytes are not UTF-8: such a name cannot be told from another (fuse-native passes text). */
const REPLACEMENT = '\ufffd';
export const EILSEQ = 84;

/**
 * The backing directory, by paths as libfuse gives them (`/a/b`), below a descriptor from before the mount.
 * Results are 0 or more, or -errno.
 */
export class BackingTree {
  readonly root: number;
  readonly #registry: ImageRegistry;
  readonly #stat = new StatBuffer();

  constructor(root: number, registry: ImageRegistry) {
    this.root = root;
    this.#registry = registry;
  }

  /** The path below the root, NUL at its end; null when its bytes have been lost on the way (EILSEQ). */
  relative(path: string): Uint8Array | null {
    if (path.includes(REPLACEMENT)) return null;
    return cString(path === '/' ? '.' : path.slice(1));
  }

  /** Calls `perform` with the path below the root. */
  at(path: string, perform: (relative: Uint8Array) => number): number {
    const relative = this.relative(path);
    return relative === null ? -EILSEQ : perform(relative);
  }

  /** Attributes of the entry, valid until the next call; a symbolic link's own. */
  stat(path: string): StatBuffer | number {
    const result = this.at(path, (relative) => this.#stat.ofEntry(this.root, relative));
    return result < 0 ? result : this.#stat;
  }

  /** Calls `perform` with `/proc/self/fd/N`, which names the entry itself even where it is a symbolic link. */
  throughDescriptor(path: string, perform: (path: Uint8Array) => number): number {
    return this.at(path, (relative) => {
      const fd = openat(this.root, relative, O_PATH | O_NOFOLLOW | O_CLOEXEC, 0);
      if (fd < 0) return fd;
      try {
        return perform(descriptorPath(fd));
      } finally {
        close(fd);
      }
    });
  }

  /** Whether the name belongs to an image that migrates: such a name must stay (EBUSY). */
  isPinned(path: string): boolean {
    if (!this.#registry.anyPinned) return false;
    const stat = this.stat(path);
    return (
      typeof stat !== 'number' && stat.type === S_IFREG && this.#registry.isPinned(stat.device, stat.inode)
    );
  }
}

/** The ownership record is not for users of the mount. */
export const isHiddenXattr = (name: string): boolean => name === IMAGE_RECORD_XATTR;
