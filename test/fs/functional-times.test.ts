import { compareTransports } from '../posix/compare.js';
import { folderCases } from '../posix/folder-cases.js';
import { rangeCases } from '../posix/range-cases.js';
import { timeCases } from '../posix/time-cases.js';
import { FUSE_NATIVE_LIMITS, KERNEL_LIMITS } from '../posix/transport-limits.js';

compareTransports(() => ({ ...timeCases, ...rangeCases, ...folderCases }), {
  kernel: KERNEL_LIMITS,
  'fuse-native': FUSE_NATIVE_LIMITS,
});
