import { MigrateFsError } from '../leaves/errors.js';
import { Errno, errnoName } from './errno.js';
import { cString, fgetxattr, fremovexattr, fsetxattr, fsync } from './libc.js';
import { StatBuffer } from './stat-buffer.js';

/** Who owns an image, persisted beside its bytes in an extended attribute so that it follows renames and restarts. */
export const IMAGE_RECORD_XATTR = 'trusted.migratefs';

/**
 * `owner`: this host accepts writes (an image without a record is an owner of generation 0). `fenced`: another host
 * took the image over. `replica`: an unfinished copy, not for use.
 */
export interface ImageRecord {
  readonly role: 'owner' | 'fenced' | 'replica';
  readonly generation: number;
  readonly migration: string;
  /** Data address of the host that owns it now (fenced) or that is sending it (replica). */
  readonly peer: string;
  /** Backing inode: a record that was copied along with its file does not count. */
  readonly inode: number;
}

const NAME = cString(IMAGE_RECORD_XATTR);
/** Beside it for a moment. */
const PROBE_NAME = cString(`${IMAGE_RECORD_XATTR}.probe`);
const RECORD_BYTES_MAX = 4096;
const ROLES: readonly string[] = ['owner', 'fenced', 'replica'] satisfies ImageRecord['role'][];

const inodeOf = (fd: number): number => {
  const stat = new StatBuffer();
  const result = stat.ofDescriptor(fd);
  if (result < 0) throw recordError('read', result);
  return Number(stat.inode);
};

const recordError = (what: string, result: number): MigrateFsError => {
  const code =
    result === -Errno.ENOSPC || result === -Errno.EDQUOT ? 'RESOURCE_EXHAUSTED' : 'FAILED_PRECONDITION';
  const remedy =
    result === -Errno.EOPNOTSUPP
      ? ': the file system of the image directory has no trusted.* extended attributes; use ext4, xfs, btrfs or tmpfs'
      : result === -Errno.EPERM
        ? ': this needs root (CAP_SYS_ADMIN)'
        : '';
  return new MigrateFsError(
    code,
    `cannot ${what} the ownership record of the image: ${errnoName(result)}${remedy}`,
  );
};

const isRecord = (value: unknown): value is ImageRecord => {
  if (typeof value !== 'object' || value === null) return false;
  const { role, generation, migration, peer, inode } = value as Record<string, unknown>;
  return (
    typeof role === 'string' &&
    ROLES.includes(role) &&
    Number.isSafeInteger(generation) &&
    (generation as number) >= 0 &&
    typeof migration === 'string' &&
    typeof peer === 'string' &&
    typeof inode === 'number'
  );
};

/**
 * The record of the image behind `fd` (any access mode, not O_PATH), or null when there is none that counts.
 * DATA_LOSS: there is one and it cannot be understood, so who owns the image is unknown: do not write to it.
 */
export const readRecord = (fd: number): ImageRecord | null => {
  const value = new Uint8Array(RECORD_BYTES_MAX);
  const length = fgetxattr(fd, NAME, value, value.length);
  if (length === -Errno.ENODATA || length === -Errno.EOPNOTSUPP) return null;
  if (length < 0 && length !== -Errno.ERANGE) throw recordError('read', length);
  let record: unknown;
  try {
    record = length < 0 ? undefined : JSON.parse(Buffer.from(value.buffer, 0, length).toString());
  } catch {
    record = undefined;
  }
  if (!isRecord(record))
    throw new MigrateFsError(
      'DATA_LOSS',
      `the ownership record of the image is damaged; when this host surely owns it: setfattr -x ${IMAGE_RECORD_XATTR} FILE`,
    );
  return record.inode === inodeOf(fd) ? record : null;
};

/** INVALID_ARGUMENT: it is too large. */
const encode = (fd: number, record: ImageRecord): Buffer => {
  const value = Buffer.from(JSON.stringify({ ...record, inode: inodeOf(fd) }));
  if (value.length > RECORD_BYTES_MAX)
    throw new MigrateFsError(
      'INVALID_ARGUMENT',
      `image record of ${value.length} bytes, at most ${RECORD_BYTES_MAX}`,
    );
  return value;
};

/** Persists the record (it is on disk when this returns), with the inode of `fd` whatever `record.inode` says. */
export const writeRecord = (fd: number, record: ImageRecord): void => {
  const value = encode(fd, record);
  const result = fsetxattr(fd, NAME, value, value.length, 0);
  if (result < 0) throw recordError('write', result);
  syncRecord(fd);
};

/** Throws what `writeRecord` would where the file system has no room for such a record, or no records at all. */
export const probeRecord = (fd: number, record: ImageRecord): void => {
  const value = encode(fd, record);
  const result = fsetxattr(fd, PROBE_NAME, value, value.length, 0);
  if (result < 0) throw recordError('write', result);
  const removed = fremovexattr(fd, PROBE_NAME);
  if (removed < 0) throw recordError('remove', removed);
};

/** Removes the record (that is on disk when this returns); nothing happens when there is none. */
export const removeRecord = (fd: number): void => {
  const result = fremovexattr(fd, NAME);
  if (result === -Errno.ENODATA) return;
  if (result < 0) throw recordError('remove', result);
  syncRecord(fd);
};

const syncRecord = (fd: number): void => {
  const result = fsync(fd);
  if (result < 0) throw recordError('sync', result);
};
