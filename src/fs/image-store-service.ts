import type { PlainError } from '../leaves/errors.js';
import { MigrateFsError, plainError } from '../leaves/errors.js';
import { bytes } from '../leaves/units.js';
import { Errno, errnoName } from './errno.js';
import { parseImageName } from './image-name.js';
import { readRecord, writeRecord } from './image-record.js';
import type { ImageRegistry } from './image-registry.js';
import { NO_SLOT } from './image-registry.js';
import type { FreeSpace, ImageStore, PinnedImage, ReplicaAttributes, StoredImage } from './image-store.js';
import type { ImageSlot, ImageTable } from './image-table.js';
import { ImageMode } from './image-table.js';
import {
  AT_EMPTY_PATH,
  AT_FDCWD,
  AT_REMOVEDIR,
  close,
  cString,
  descriptorPath,
  EMPTY_PATH,
  fchmod,
  fchownat,
  ftruncate,
  mkdirat,
  O_CLOEXEC,
  O_CREAT,
  O_DIRECTORY,
  O_EXCL,
  O_NOFOLLOW,
  O_PATH,
  O_RDONLY,
  O_RDWR,
  openat,
  openat2,
  RESOLVE_BENEATH,
  RESOLVE_NO_MAGICLINKS,
  S_IFREG,
  unlinkat,
} from './libc.js';
import { StatBuffer, StatVfsBuffer } from './stat-buffer.js';
import { UndoStack } from './undo-stack.js';

const BYTES_PER_STAT_BLOCK = 512;
const MADE_DIRECTORY_MODE = 0o755;
const CREATION_MODE = 0o600;

/** A directory entry by its parent, which stays the same directory whatever it is renamed to. */
interface Place {
  readonly parent: number;
  readonly name: Uint8Array;
}

interface Pin {
  readonly fd: number;
  readonly place: Place;
  /** Directories made for it, outermost first. */
  readonly made: readonly Place[];
}

const storeError = (what: string, name: string, result: number): MigrateFsError => {
  const text = `cannot ${what} image ${JSON.stringify(name)}: `;
  switch (-result) {
    case Errno.ENOENT:
    case Errno.ENOTDIR:
      return new MigrateFsError('NOT_FOUND', `${text}no such file in the exported directory`);
    case Errno.EXDEV:
    case Errno.ELOOP:
      return new MigrateFsError(
        'INVALID_ARGUMENT',
        `${text}a symbolic link on its path leaves the exported directory`,
      );
    case Errno.EEXIST:
      return new MigrateFsError(
        'ALREADY_EXISTS',
        `${text}a file of that name is there already, and was not touched: remove it if nobody needs it, or move it away`,
      );
    case Errno.ENAMETOOLONG:
      return new MigrateFsError('INVALID_ARGUMENT', `${text}the name is too long`);
    case Errno.ENOSPC:
    case Errno.EDQUOT:
      return new MigrateFsError('RESOURCE_EXHAUSTED', `${text}no space is left (${errnoName(result)})`);
    case Errno.EFBIG:
      return new MigrateFsError(
        'RESOURCE_EXHAUSTED',
        `${text}the file system cannot hold a file of that size`,
      );
    case Errno.EMFILE:
    case Errno.ENFILE:
      return new MigrateFsError('RESOURCE_EXHAUSTED', `${text}too many open files`);
    case Errno.EROFS:
      return new MigrateFsError('FAILED_PRECONDITION', `${text}the file system is mounted read-only`);
    case Errno.EACCES:
    case Errno.EPERM:
      return new MigrateFsError('PERMISSION_DENIED', `${text}${errnoName(result)}`);
    default:
      return new MigrateFsError('INTERNAL', `${text}${errnoName(result)}`);
  }
};

/**
 * `ImageStore` over the backing directory, for either transport. Runs in the thread that owns the namespace, whose
 * registry it shares. Errors are MigrateFsError.
 */
export class ImageStoreService implements ImageStore {
  readonly #root: number;
  readonly #table: ImageTable;
  readonly #registry: ImageRegistry;
  readonly #invalidate: (slot: ImageSlot) => void;
  readonly #pins = new Map<ImageSlot, Pin>();
  readonly #stat = new StatBuffer();

  /** `root`: descriptor of the backing directory from before the mount; stays the caller's. */
  constructor(
    root: number,
    table: ImageTable,
    registry: ImageRegistry,
    invalidate: (slot: ImageSlot) => void,
  ) {
    this.#root = root;
    this.#table = table;
    this.#registry = registry;
    this.#invalidate = invalidate;
  }

  pin(name: string): PinnedImage {
    const components = parseImageName(name);
    using resources = new UndoStack();
    const path = this.#locate(components, name);
    resources.defer(() => close(path));
    const parent =
      components.length === 1
        ? openat(this.#root, cString('.'), O_PATH | O_DIRECTORY | O_CLOEXEC, 0)
        : this.#resolve(components.slice(0, -1), O_PATH | O_DIRECTORY, name);
    if (parent < 0) throw storeError('open', name, parent);
    using undo = new UndoStack();
    undo.defer(() => close(parent));
    const fd = openat(AT_FDCWD, descriptorPath(path), O_RDWR | O_CLOEXEC, 0);
    if (fd < 0) throw storeError('open', name, fd);
    undo.defer(() => close(fd));
    const pinned = this.#adopt(name, { fd, place: { parent, name: cString(components.at(-1)!) }, made: [] });
    undo.keep();
    return pinned;
  }

  describe(names: readonly string[]): readonly (StoredImage | PlainError)[] {
    return names.map((name) => {
      try {
        return this.#describe(name);
      } catch (error) {
        return plainError(error);
      }
    });
  }

  createReplica(name: string, attributes: ReplicaAttributes): PinnedImage {
    const components = parseImageName(name);
    using undo = new UndoStack();
    const made = this.#makeParents(components, name, undo);
    const parent =
      components.length === 1
        ? openat(this.#root, cString('.'), O_PATH | O_DIRECTORY | O_CLOEXEC, 0)
        : this.#resolve(components.slice(0, -1), O_PATH | O_DIRECTORY, name);
    if (parent < 0) throw storeError('create', name, parent);
    undo.defer(() => close(parent));
    const place = { parent, name: cString(components.at(-1)!) };
    const flags = O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
    const fd = openat(parent, place.name, flags, CREATION_MODE);
    if (fd < 0) throw storeError('create', name, fd);
    undo.defer(() => close(fd));
    undo.defer(() => unlinkat(parent, place.name, 0));
    // The record comes first: from here on a crash leaves a file that says what it is.
    writeRecord(fd, attributes.record);
    const check = (result: number): void => {
      if (result < 0) throw storeError('create', name, result);
    };
    check(ftruncate(fd, attributes.size));
    check(fchownat(fd, EMPTY_PATH, attributes.uid, attributes.gid, AT_EMPTY_PATH));
    check(fchmod(fd, attributes.mode & 0o7777));
    const pinned = this.#adopt(name, { fd, place, made });
    this.#table.setMode(pinned.slot, ImageMode.fenced);
    this.#table.setUncached(pinned.slot, true);
    undo.keep();
    return pinned;
  }

  /** The pin is given back even when the file could not be removed, which is thrown. */
  release(slot: ImageSlot, remove: boolean): void {
    const pin = this.#pins.get(slot);
    if (!pin) throw new MigrateFsError('FAILED_PRECONDITION', `image slot ${slot} is not pinned`);
    try {
      if (remove) this.#removeReplica(pin);
    } finally {
      this.#pins.delete(slot);
      this.#registry.unpin(slot);
      this.#registry.release(slot);
      close(pin.fd);
      close(pin.place.parent);
      for (const { parent, name } of pin.made.toReversed()) {
        if (remove) unlinkat(parent, name, AT_REMOVEDIR); // stays when something else is in it by now
        close(parent);
      }
    }
  }

  invalidate(slot: ImageSlot): void {
    this.#invalidate(slot);
  }

  freeSpace(names: readonly string[]): readonly FreeSpace[] {
    return names.map((name) => this.#freeSpace(name));
  }

  /** Closes every descriptor that is held; for the end of the mount. */
  close(): void {
    for (const slot of [...this.#pins.keys()]) this.release(slot, false);
  }

  #freeSpace(name: string): FreeSpace {
    using resources = new UndoStack();
    const parent = this.#deepestParent(parseImageName(name), name);
    resources.defer(() => close(parent));
    const fileSystem = new StatVfsBuffer();
    const found = this.#stat.ofDescriptor(parent);
    const result = found < 0 ? found : fileSystem.ofDescriptor(parent);
    if (result < 0) throw storeError('find room for', name, result);
    return {
      device: this.#stat.device,
      free: bytes(fileSystem.freeToRoot * fileSystem.fragmentSize),
    };
  }

  /** An O_PATH descriptor of the folder of the image, or of the one in which the first that is missing would be made. */
  #deepestParent(components: readonly string[], name: string): number {
    for (let depth = components.length - 1; ; depth--) {
      const path = cString(['.', ...components.slice(0, depth)].join('/'));
      const flags = O_PATH | O_DIRECTORY | O_CLOEXEC;
      const fd = openat2(this.#root, path, flags, 0, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS);
      if (fd >= 0) return fd;
      if (fd !== -Errno.ENOENT || depth === 0) throw storeError('find room for', name, fd);
    }
  }

  #describe(name: string): StoredImage {
    using resources = new UndoStack();
    const path = this.#locate(parseImageName(name), name);
    resources.defer(() => close(path));
    const fd = openat(AT_FDCWD, descriptorPath(path), O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0) throw storeError('open', name, fd);
    resources.defer(() => close(fd));
    const found = this.#stat.ofDescriptor(fd);
    if (found < 0) throw storeError('open', name, found);
    const { size, blocks, device, inode } = this.#stat;
    const slot = this.#registry.slotOf(device, inode);
    return {
      size: bytes(size),
      allocated: bytes(blocks * BYTES_PER_STAT_BLOCK),
      record: readRecord(fd),
      ...(this.#pins.has(slot) && { slot }),
    };
  }

  /** An O_PATH descriptor of a regular file, so that opening it has no effect on anything else. */
  #locate(components: readonly string[], name: string): number {
    const path = this.#resolve(components, O_PATH, name);
    const found = this.#stat.ofDescriptor(path);
    if (found >= 0 && this.#stat.type === S_IFREG) return path;
    close(path);
    if (found < 0) throw storeError('open', name, found);
    throw new MigrateFsError(
      'INVALID_ARGUMENT',
      `cannot open image ${JSON.stringify(name)}: not a regular file`,
    );
  }

  #resolve(components: readonly string[], flags: number, name: string): number {
    const path = cString(components.join('/'));
    const fd = openat2(this.#root, path, flags | O_CLOEXEC, 0, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS);
    if (fd < 0) throw storeError('open', name, fd);
    return fd;
  }

  /** Makes the parents that are missing; `undo` removes them again unless it is kept. */
  #makeParents(components: readonly string[], name: string, undo: UndoStack): Place[] {
    const made: Place[] = [];
    for (let depth = 1; depth < components.length; depth++) {
      const path = cString(components.slice(0, depth).join('/'));
      const flags = O_PATH | O_DIRECTORY | O_CLOEXEC;
      const existing = openat2(this.#root, path, flags, 0, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS);
      if (existing >= 0) {
        close(existing);
        continue;
      }
      if (existing !== -Errno.ENOENT) throw storeError('create', name, existing);
      const parent =
        depth === 1
          ? openat(this.#root, cString('.'), flags, 0)
          : this.#resolve(components.slice(0, depth - 1), O_PATH | O_DIRECTORY, name);
      if (parent < 0) throw storeError('create', name, parent);
      undo.defer(() => close(parent));
      const place = { parent, name: cString(components[depth - 1]!) };
      const result = mkdirat(parent, place.name, MADE_DIRECTORY_MODE);
      if (result < 0) throw storeError('create', name, result);
      undo.defer(() => unlinkat(parent, place.name, AT_REMOVEDIR));
      made.push(place);
    }
    return made;
  }

  #adopt(name: string, pin: Pin): PinnedImage {
    const { fd } = pin;
    const found = this.#stat.ofDescriptor(fd);
    if (found < 0) throw storeError('open', name, found);
    const { size, blocks, mode, uid, gid, device, inode } = this.#stat;
    // Whatever can throw comes before the slot is taken.
    const attributes = {
      size: bytes(size),
      allocated: bytes(blocks * BYTES_PER_STAT_BLOCK),
      mode: mode & 0o7777,
      uid,
      gid,
      record: readRecord(fd),
    };
    const slot = this.#registry.acquire(device, inode, fd);
    if (slot === NO_SLOT) throw storeError('open', name, -Errno.ENFILE);
    if (!this.#registry.pin(slot)) {
      this.#registry.release(slot);
      throw new MigrateFsError('FAILED_PRECONDITION', `image ${JSON.stringify(name)} is migrating already`);
    }
    this.#pins.set(slot, pin);
    return { slot, fd, ...attributes };
  }

  /** Unlinks what is a replica by its record and still the file at its place; anything else stays (G4). */
  #removeReplica({ fd, place }: Pin): void {
    if (readRecord(fd)?.role !== 'replica')
      throw new MigrateFsError(
        'FAILED_PRECONDITION',
        'refusing to remove an image that is not an unfinished replica',
      );
    const own = new StatBuffer();
    if (own.ofDescriptor(fd) < 0 || own.links === 0) return;
    const found = this.#stat.ofEntry(place.parent, place.name);
    if (found < 0 || this.#stat.inode !== own.inode || this.#stat.device !== own.device)
      throw new MigrateFsError(
        'FAILED_PRECONDITION',
        'the replica is no longer where it was created; remove it by hand',
      );
    const result = unlinkat(place.parent, place.name, 0);
    if (result < 0) throw new MigrateFsError('INTERNAL', `cannot remove a replica: ${errnoName(result)}`);
    // Whoever has looked at it keeps the file for as long as the kernel remembers that. Not before: emptied and still there, it
    // could be taken for whole by a daemon that is started again.
    if (own.links === 1) ftruncate(fd, 0);
  }
}
