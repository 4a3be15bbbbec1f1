import { realpathSync, statSync } from 'node:fs';
import { MigrateFsError } from '../../leaves/errors.js';
import { Errno, errnoName } from '../errno.js';
import {
  AT_FDCWD,
  close,
  cString,
  ioctl,
  mount,
  O_CLOEXEC,
  O_DIRECTORY,
  O_RDONLY,
  O_RDWR,
  openat,
} from '../libc.js';
import { mountsAt, OwnMount } from '../mount-table.js';
import { TRANSFER_BYTES_MAX } from './protocol.js';

/** _IOR(229, 0, uint32_t) in include/uapi/linux/fuse.h. */
const FUSE_DEV_IOC_CLONE = 0x8004e500;

const failed = (message: string): MigrateFsError => new MigrateFsError('FAILED_PRECONDITION', message);

const directoryError = (what: string, path: string, result: number): MigrateFsError => {
  switch (-result) {
    case Errno.ENOENT:
      return new MigrateFsError('NOT_FOUND', `${what} ${path} does not exist: create it with mkdir -p`);
    case Errno.ENOTDIR:
      return new MigrateFsError('INVALID_ARGUMENT', `${what} ${path} is not a directory`);
    case Errno.ENOTCONN:
      return failed(
        `${what} ${path} is a FUSE mount whose daemon has died: detach it with umount -l ${path}`,
      );
    default:
      return failed(`${what} ${path} cannot be opened: ${errnoName(result)}`);
  }
};

/** Opens the backing directory before anything is mounted over it. */
export const openImageDirectory = (path: string): number => {
  const fd = openat(AT_FDCWD, cString(path), O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
  if (fd < 0) throw directoryError('image directory', path, fd);
  return fd;
};

/** The mount point with every symlink resolved. It may be the image directory or lie outside of it, not below. */
export const checkMountpoint = (imageDir: string, mountpoint: string): string => {
  let resolved: string;
  try {
    resolved = realpathSync(mountpoint);
    if (!statSync(resolved).isDirectory()) throw directoryError('mount point', mountpoint, -Errno.ENOTDIR);
  } catch (error) {
    if (error instanceof MigrateFsError) throw error;
    const { errno } = error as NodeJS.ErrnoException;
    throw directoryError('mount point', mountpoint, errno ?? -Errno.EIO);
  }
  if (resolved.startsWith(`${realpathSync(imageDir)}/`))
    throw new MigrateFsError(
      'INVALID_ARGUMENT',
      `mount point ${mountpoint} lies inside the image directory: mount over ${imageDir} itself, or outside of it`,
    );
  refuseBusy(resolved);
  return resolved;
};

/** The kernel would stack a second FUSE mount on the first; nobody wants that. */
const refuseBusy = (mountpoint: string): void => {
  const fuse = mountsAt(mountpoint).find(({ type }) => /^fuse(\.|$)/.test(type));
  if (fuse)
    throw failed(`mount point ${mountpoint} is busy: ${fuse.source} is mounted there: unmount it first`);
};

export const openFuseDevice = (): number => {
  const fd = openat(AT_FDCWD, cString('/dev/fuse'), O_RDWR | O_CLOEXEC, 0);
  switch (-fd) {
    case Errno.ENOENT:
    case Errno.ENODEV:
    case Errno.ENXIO:
      throw failed(
        '/dev/fuse is missing: load the kernel module with modprobe fuse (in a container: --device /dev/fuse)',
      );
    case Errno.EACCES:
    case Errno.EPERM:
      throw new MigrateFsError('PERMISSION_DENIED', 'no permission to open /dev/fuse: run as root');
    default:
      if (fd < 0) throw failed(`/dev/fuse cannot be opened: ${errnoName(fd)}`);
      return fd;
  }
};

/** A second descriptor of the same connection, with its own queue of requests being worked on. */
export const cloneFuseDevice = (fuseFd: number): number => {
  const clone = openFuseDevice();
  const result = ioctl(clone, FUSE_DEV_IOC_CLONE, Uint32Array.of(fuseFd));
  if (result < 0) {
    close(clone);
    throw failed(`the kernel does not clone FUSE descriptors: ${errnoName(result)}`);
  }
  return clone;
};

/** Mounts; the kernel's INIT request is waiting on `fuseFd` afterwards. */
export const mountFuse = (fuseFd: number, imageDir: string, mountpoint: string): OwnMount => {
  const options = [
    `fd=${fuseFd}`,
    'rootmode=40000',
    'user_id=0',
    'group_id=0',
    'allow_other',
    'default_permissions',
    `max_read=${TRANSFER_BYTES_MAX}`,
  ].join(',');
  const source = cString(`migratefs:${imageDir}`);
  const result = mount(source, cString(mountpoint), cString('fuse.migratefs'), 0, cString(options));
  switch (-result) {
    case Errno.EPERM:
    case Errno.EACCES:
      throw new MigrateFsError(
        'PERMISSION_DENIED',
        `no permission to mount on ${mountpoint}: run as root (CAP_SYS_ADMIN)`,
      );
    case Errno.ENODEV:
      throw failed('the kernel has no FUSE file system: load it with modprobe fuse');
    case Errno.EBUSY:
      throw failed(`mount point ${mountpoint} is busy: unmount what is there, or choose another`);
    case Errno.ENOTCONN:
      throw directoryError('mount point', mountpoint, result);
    default:
      if (result < 0) throw failed(`cannot mount on ${mountpoint}: ${errnoName(result)}`);
      return new OwnMount(mountpoint);
  }
};
