/** A process that has something open on the mount. */
export interface Holder {
  readonly pid: number;
  readonly command: string;
  readonly path: string;
}

/** `lazy`: detach at once; what is open stays usable, and the daemon ends when the last of it is closed. */
export interface UnmountRequest {
  readonly mountpoint: string;
  readonly lazy: boolean;
}

/**
 * Unmounts and resolves to who still has files open, once nothing new can be opened. FAILED_PRECONDITION, and the
 * mount goes on: files are open or images migrate, and it is not `lazy`; or the daemon serves another mount point.
 */
export type Unmount = (request: UnmountRequest) => Promise<readonly Holder[]>;
