import { compareTransports } from '../posix/compare.js';
import { nameCases } from '../posix/name-cases.js';
import { FUSE_NATIVE_LIMITS, KERNEL_LIMITS } from '../posix/transport-limits.js';

compareTransports(() => nameCases, { kernel: KERNEL_LIMITS, 'fuse-native': FUSE_NATIVE_LIMITS });
