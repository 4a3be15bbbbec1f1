import { compareTransports } from '../posix/compare.js';
import { fileCases } from '../posix/file-cases.js';
import { FUSE_NATIVE_LIMITS, KERNEL_LIMITS } from '../posix/transport-limits.js';

compareTransports(() => fileCases, { kernel: KERNEL_LIMITS, 'fuse-native': FUSE_NATIVE_LIMITS });
