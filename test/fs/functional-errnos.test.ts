import { compareTransports } from '../posix/compare.js';
import { errnoCases } from '../posix/errno-cases.js';
import { permissionCases } from '../posix/permission-cases.js';
import { FUSE_NATIVE_LIMITS, KERNEL_LIMITS } from '../posix/transport-limits.js';

compareTransports(() => ({ ...errnoCases, ...permissionCases }), {
  kernel: KERNEL_LIMITS,
  'fuse-native': FUSE_NATIVE_LIMITS,
});
