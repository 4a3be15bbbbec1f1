import { attributeCases } from '../posix/attribute-cases.js';
import { compareTransports } from '../posix/compare.js';
import { FUSE_NATIVE_LIMITS, KERNEL_LIMITS } from '../posix/transport-limits.js';

compareTransports(() => attributeCases, { kernel: KERNEL_LIMITS, 'fuse-native': FUSE_NATIVE_LIMITS });
