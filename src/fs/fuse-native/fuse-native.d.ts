/** The part of fuse-native 2.2 (index.js, fuse-native.c) that the transport uses; the package has no types. */
declare module 'fuse-native' {
  class Fuse {
    constructor(mountpoint: string, operations: Fuse.Operations, options: { readonly timeout: false });
    readonly mnt: string;
    protected _thread: Buffer | null;
    protected _openCallback: ((error: Error | null) => void) | null;
    /** By operation number: called with the request's native state, the number, and the operation's arguments. */
    protected readonly _handlers: (Fuse.Handler | undefined)[];
    protected _malloc(size: number): Buffer;
    protected _getImplementedArray(): Uint32Array;
    protected _op_getxattr(
      signal: Fuse.Result,
      path: string,
      name: string,
      value: Buffer,
      position: number,
    ): void;
    protected _op_listxattr(signal: Fuse.Result, path: string, list: Buffer): void;
  }

  namespace Fuse {
    type Result = (result: number, ...values: unknown[]) => void;
    type Operations = Readonly<Record<string, (...args: never[]) => void>>;
    type Handler = (locals: Buffer, operation: number, ...args: unknown[]) => void;
  }

  export = Fuse;
}
