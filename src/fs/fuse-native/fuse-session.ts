import { createRequire } from 'node:module';
import { dirname } from 'node:path';
import Fuse from 'fuse-native';
import koffi from 'koffi';
import { Errno } from '../errno.js';

/** Longest mount point and option string that fuse-native keeps, bytes. */
export const MOUNTPOINT_BYTES_MAX = 1023;
const FSNAME_CHARACTERS_MAX = 200;

/** Operation numbers of fuse-native.c. */
const OPERATION_UTIMENS = 12;
const OPERATION_OPEN = 21;
const OPERATION_WRITE = 24;

/**
 * Where `fuse_thread_locals_t` of fuse-native 2.2 keeps what its callbacks leave out (fuse-native.c, LP64), and
 * where libfuse 2 keeps the bits of `struct fuse_file_info` (fuse_common.h). Both are checked against values
 * that the callback does get before they are believed.
 */
const LOCALS_INFO = 48;
const LOCALS_ACCESS_MILLIS = 104;
const LOCALS_MODIFICATION_MILLIS = 112;
const FILE_INFO_WRITEPAGE = 16;
const FILE_INFO_BITS = 20;
const FILE_INFO_HANDLE = 24;
const DIRECT_IO = 1;

interface Binding {
  readonly sizeof_fuse_thread_t: number;
  fuse_native_mount(
    mountpoint: string,
    options: string,
    thread: Buffer,
    self: unknown,
    malloc: unknown,
    handlers: unknown,
    implemented: Uint32Array,
  ): void;
  fuse_native_unmount(mountpoint: string, thread: Buffer): void;
}

const loadBinding = (): Binding => {
  const entry = createRequire(import.meta.url).resolve('fuse-native');
  const load = createRequire(entry)('node-gyp-build') as (folder: string) => Binding;
  return load(dirname(entry));
};

/** What libfuse passes beside the arguments of one request. */
export interface RequestState {
  /** The modification time of a utimens, milliseconds; undefined when it cannot be told. */
  readonly modificationMillis: number | undefined;
  /** Makes the kernel leave the page cache out of this open; false when that cannot be done. */
  useDirectIo(): boolean;
  /** Whether a write is of pages that the kernel writes back: it does not look at how much was written. So if unknown. */
  writesBack(): boolean;
}

const UNKNOWN: RequestState = {
  modificationMillis: undefined,
  useDirectIo: () => false,
  writesBack: () => true,
};

const millisOf = (low: unknown, high: unknown): number => Number(low) + Number(high) * 2 ** 32;

const utimensState = (locals: Buffer, args: unknown[]): RequestState => {
  // Arguments: path, access time (low, high), and once more the access time, which is fuse-native's mistake.
  const believed = Number(locals.readBigUInt64LE(LOCALS_ACCESS_MILLIS)) === millisOf(args[1], args[2]);
  if (!believed) return UNKNOWN;
  return { ...UNKNOWN, modificationMillis: Number(locals.readBigInt64LE(LOCALS_MODIFICATION_MILLIS)) };
};

const openState = (locals: Buffer, args: unknown[]): RequestState => ({
  ...UNKNOWN,
  useDirectIo: () => {
    const info = locals.readBigUInt64LE(LOCALS_INFO);
    // The open flags lead the structure; arguments: path, flags.
    if (info === 0n || koffi.decode(info, 'uint32_t') !== args[1]) return false;
    const bits = koffi.decode(info + BigInt(FILE_INFO_BITS), 'uint32_t') as number;
    koffi.encode(info + BigInt(FILE_INFO_BITS), 'uint32_t', bits | DIRECT_IO);
    return true;
  },
});

const writeState = (locals: Buffer, args: unknown[]): RequestState => ({
  ...UNKNOWN,
  writesBack: () => {
    const info = locals.readBigUInt64LE(LOCALS_INFO);
    // Arguments: path, handle.
    if (info === 0n || koffi.decode(info + BigInt(FILE_INFO_HANDLE), 'uint32_t') !== args[1]) return true;
    return koffi.decode(info + BigInt(FILE_INFO_WRITEPAGE), 'uint32_t') !== 0;
  },
});

/** fuse-native with its mount options, extended attributes and lifecycle put right. */
export class FuseSession extends Fuse {
  readonly #fsname: string;
  readonly #binding: Binding;
  #request = UNKNOWN;

  /** `fsname`: what the mount table shows as the source. */
  constructor(mountpoint: string, fsname: string, operations: Fuse.Operations) {
    // fuse-native answers ETIMEDOUT after 15 s by default, while the work goes on; a guest's write may take longer.
    super(mountpoint, operations, { timeout: false });
    this.#fsname = fsname.slice(0, FSNAME_CHARACTERS_MAX);
    this.#binding = loadBinding();
    this.#watch(OPERATION_UTIMENS, utimensState);
    this.#watch(OPERATION_OPEN, openState);
    this.#watch(OPERATION_WRITE, writeState);
  }

  /** State of the request whose callback is running now. */
  get request(): RequestState {
    return this.#request;
  }

  /** Mounts and resolves when the kernel has been answered. Rejects with what libfuse left of a reason: none. */
  mount(): Promise<void> {
    return new Promise((resolve, reject) => {
      this._thread = Buffer.alloc(this.#binding.sizeof_fuse_thread_t);
      this._openCallback = (error) => (error ? reject(error) : resolve());
      const options = [
        'allow_other',
        'default_permissions',
        'use_ino',
        // Without it libfuse 2 asks the kernel for writes of at most 4 KiB.
        'big_writes',
        'nonempty',
        'subtype=migratefs',
        `fsname=${this.#fsname.replace(/[\\,]/g, '\\$&')}`,
      ];
      try {
        this.#binding.fuse_native_mount(
          this.mnt,
          `-o${options.join(',')}`,
          this._thread,
          this,
          this._malloc,
          this._handlers,
          this._getImplementedArray(),
        );
      } catch (error) {
        reject(error);
      }
    });
  }

  /** Lets the event loop end; the mount is gone already. */
  forget(): void {
    if (this._thread) this.#binding.fuse_native_unmount(this.mnt, this._thread);
  }

  /** Gives the caller's room to the operation, so that it can answer ERANGE. */
  override _op_getxattr(signal: Fuse.Result, path: string, name: string, value: Buffer): void {
    this.#xattr('getxattr', signal, value, path, name);
  }

  override _op_listxattr(signal: Fuse.Result, path: string, list: Buffer): void {
    this.#xattr('listxattr', signal, list, path);
  }

  #xattr(operation: string, signal: Fuse.Result, room: Buffer, ...names: string[]): void {
    const perform = (this as unknown as { ops: Record<string, (...args: unknown[]) => void> }).ops[
      operation
    ]!;
    perform(...names, (result: number, value: Uint8Array) => {
      if (result < 0) return signal(result, room.buffer);
      if (room.length === 0) return signal(value.length, room.buffer);
      if (value.length > room.length) return signal(-Errno.ERANGE, room.buffer);
      room.set(value);
      signal(value.length, room.buffer);
    });
  }

  #watch(operation: number, stateOf: (locals: Buffer, args: unknown[]) => RequestState): void {
    const handler = this._handlers[operation] as Fuse.Handler;
    this._handlers[operation] = (locals, number, ...args) => {
      this.#request = stateOf(locals, args);
      try {
        handler(locals, number, ...args);
      } finally {
        this.#request = UNKNOWN;
      }
    };
  }
}
