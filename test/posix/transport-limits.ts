/** What a transport cannot do, by case, with the reason. For users: docs/TRANSPORTS.md. */
import type { Exclusions } from './compare.js';
import { NODE_KINDS } from './node-kinds.js';

const NO_FALLOCATE = 'fuse-native 2.2 has no fallocate operation';
const NO_LSEEK = 'libfuse 2 has no lseek operation: SEEK_DATA sees no hole';
/** Until its RELEASE, which close(2) does not wait for. */
const HIDDEN_NAME = 'libfuse 2 keeps an open file whose name is gone under another, .fuse_hidden*';
const NO_RENAME_FLAGS = 'libfuse 2 has no rename flags';
const NO_CALLER = 'fuse-native does not pass on who the caller is: what is created belongs to root';
const NO_DEVICES = 'libfuse 2 mounts with nosuid and nodev';
const NAMES_ONLY = 'fuse-native reads folders by name alone: kinds and inodes are 0';
const OWN_FILES = 'libfuse 2 takes each name for a file of its own: the other names lag by up to a second';
const MILLISECONDS = 'fuse-native passes times in whole milliseconds since 1970, and both or none';

const BOTH_LIMITS: Exclusions = {
  'set-group-id without the group’s execute bit':
    'fuse.h, FUSE_HANDLE_KILLPRIV_V2: a write drops the bit only where the group may execute',
  'seeking beyond the greatest file': 'the kernel takes 2^63 - 1 for the greatest file of every FUSE mount',
};

/** The Linux kernel's FUSE hands these modes to no daemon (fs/fuse/file.c, fuse_file_fallocate). */
export const KERNEL_LIMITS: Exclusions = {
  ...BOTH_LIMITS,
  'collapsing and inserting ranges': 'the kernel passes on neither FALLOC_FL_COLLAPSE_RANGE nor INSERT_RANGE',
};

export const FUSE_NATIVE_LIMITS: Exclusions = {
  ...BOTH_LIMITS,
  ...Object.fromEntries(
    Object.keys(NODE_KINDS).map((kind) => [`a ${kind} exchanged with each kind`, NO_RENAME_FLAGS]),
  ),
  'hard links to each kind': OWN_FILES,
  'every call on a device': NO_DEVICES,
  'a device works': NO_DEVICES,
  'execute bits': NO_DEVICES,
  'trees deeper than a path is long': 'libfuse 2 refers to files by their path from the root of the mount',
  'sticky: neither folder nor thing is theirs': NO_CALLER,
  'sticky: the folder is theirs': NO_CALLER,
  'sticky: the thing is theirs': NO_CALLER,
  'a file made without rights for its maker': NO_CALLER,
  'times: creating a hard link': OWN_FILES,
  'times: removing one of two hard links': OWN_FILES,
  'times: renaming over one of two hard links': OWN_FILES,
  'times: exchanging': NO_RENAME_FLAGS,
  'times: setting the access time': MILLISECONDS,
  'times: setting the modification time': MILLISECONDS,
  'times: all three of a new thing are now': MILLISECONDS,
  'times: preallocating': NO_FALLOCATE,
  'times: punching a hole': NO_FALLOCATE,
  'times: zeroing': NO_FALLOCATE,
  'beyond the greatest file': NO_FALLOCATE,
  'edges of holes and of zeroed ranges': NO_FALLOCATE,
  'entries name kind and inode': NAMES_ONLY,
  'an empty folder lists itself and its parent': NAMES_ONLY,
  'names of raw bytes': 'fuse-native passes names as UTF-8 text; others are refused with EILSEQ',
  'a folder removed under an open descriptor': 'libfuse 2 finds a folder by its path only',
  'rename that must not replace': NO_RENAME_FLAGS,
  'rename that exchanges': NO_RENAME_FLAGS,
  'hard links': OWN_FILES,
  'what another user may do with names': NO_CALLER,
  'a folder that hands its group down': NO_CALLER,
  'a file without a name': 'libfuse 2 has no O_TMPFILE',
  'used after it was unlinked': HIDDEN_NAME,
  'nothing of a file that was renamed over while open is listed': HIDDEN_NAME,
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
