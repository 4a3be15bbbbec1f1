/** What a transport cannot do, by case, with the reason. For users: docs/TRANSPORTS.md. */
import type { Exclusions } from './compare.js';

const NO_FALLOCATE = 'fuse-native 2.2 has no fallocate operation';
const NO_LSEEK = 'libfuse 2 has no lseek operation: SEEK_DATA sees no hole';
const NO_RENAME_FLAGS = 'libfuse 2 has no rename flags';
const NO_CALLER = 'fuse-native does not pass on who the caller is: what is created belongs to root';
const MILLISECONDS = 'fuse-native passes times in whole milliseconds since 1970, and both or none';

/** The Linux kernel's FUSE hands these modes to no daemon (fs/fuse/file.c, fuse_file_fallocate). */
export const KERNEL_LIMITS: Exclusions = {
  'collapsing and inserting ranges': 'the kernel passes on neither FALLOC_FL_COLLAPSE_RANGE nor INSERT_RANGE',
};

export const FUSE_NATIVE_LIMITS: Exclusions = {
  'names of raw bytes': 'fuse-native passes names as UTF-8 text; others are refused with EILSEQ',
  'a folder removed under an open descriptor': 'libfuse 2 finds a folder by its path only',
  'rename that must not replace': NO_RENAME_FLAGS,
  'rename that exchanges': NO_RENAME_FLAGS,
  'hard links': 'libfuse 2 takes each name for a file of its own: the other names lag by up to a second',
  'what another user may do with names': NO_CALLER,
  'a folder that hands its group down': NO_CALLER,
  'a file without a name': 'libfuse 2 has no O_TMPFILE',
  'used after it was unlinked': 'libfuse 2 keeps an unlinked open file under a name, .fuse_hidden*',
  'space for a file that was unlinked': NO_FALLOCATE,
  'holes beyond 32 and 40 bits': NO_LSEEK,
  'holes are found exactly': NO_LSEEK,
  preallocation: NO_FALLOCATE,
  'holes are punched': NO_FALLOCATE,
  'ranges are zeroed': NO_FALLOCATE,
  'what lies cached is dropped by a punch': NO_FALLOCATE,
  'collapsing and inserting ranges': NO_FALLOCATE,
  'what another user may change': MILLISECONDS,
  'times to the nanosecond': MILLISECONDS,
  'times before 1970 and after 2038': MILLISECONDS,
  'which times a change moves': MILLISECONDS,
};
