import { chmod, descriptorPath, S_ISGID, S_ISUID, S_IXGRP } from '../libc.js';
import type { StatBuffer } from '../stat-buffer.js';

/**
 * Drops set-user-ID, and set-group-ID where the group may execute, as the kernel does after a write by somebody
 * without CAP_FSETID (FUSE_HANDLE_KILLPRIV_V2: the daemon, being root, has to do it itself).
 */
export const dropPrivilegeBits = (fd: number, scratch: StatBuffer): void => {
  if (scratch.ofDescriptor(fd) < 0) return;
  const { mode } = scratch;
  const groupBit = (mode & S_IXGRP) !== 0 ? S_ISGID : 0;
  if ((mode & (S_ISUID | groupBit)) !== 0) chmod(descriptorPath(fd), mode & 0o7777 & ~(S_ISUID | groupBit));
};
