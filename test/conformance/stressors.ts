/** stress-ng's stressors of files (stress-ng(1)), each alone, with its own verification. */
import { run } from '../support/run.js';

/** Those that work in the folder they are given, with options that keep them small. */
export const STRESSORS: Readonly<Record<string, readonly string[]>> = {
  access: [],
  aio: [],
  aiol: [],
  chdir: ['--chdir-dirs', '256'],
  chmod: [],
  chown: [],
  'copy-file': ['--copy-file-bytes', '128m'],
  dentry: ['--dentries', '512'],
  dir: ['--dir-dirs', '512'],
  dirdeep: ['--dirdeep-inodes', '2000'],
  dirmany: [],
  dnotify: [],
  fallocate: ['--fallocate-bytes', '32m'],
  fcntl: [],
  filename: [],
  flock: [],
  fpunch: [],
  fsize: [],
  fstat: [],
  getdent: [],
  hdd: ['--hdd-bytes', '32m'],
  inotify: [],
  io: [],
  'io-uring': [],
  iomix: ['--iomix-bytes', '32m'],
  lease: [],
  link: [],
  locka: [],
  lockf: [],
  lockofd: [],
  mknod: [],
  mmap: ['--mmap-file', '--mmap-bytes', '16m'],
  open: [],
  readahead: ['--readahead-bytes', '16m'],
  rename: [],
  revio: ['--revio-bytes', '16m'],
  seek: ['--seek-size', '16m'],
  symlink: [],
  'sync-file': ['--sync-file-bytes', '16m'],
  touch: [],
  utime: [],
  xattr: [],
};

/** The rest of stress-ng's class `filesystem`, and why it is left out. For readers: docs/CONFORMANCE.md. */
export const LEFT_OUT: Readonly<Record<string, string>> = {
  'bind-mount': 'mounts the root folder, not the one it is given',
  binderfs: 'another file system',
  chattr: 'attributes of ext4 by ioctl(2), which FUSE does not pass on to a daemon',
  dup: 'no file of the folder',
  eventfd: 'no file of the folder',
  fanotify: 'watches every mount of the machine',
  fiemap: 'ioctl(2), which FUSE does not pass on to a daemon; SEEK_HOLE and SEEK_DATA are what programs use',
  'file-ioctl': 'ioctl(2) of ext4 and XFS, which FUSE does not pass on to a daemon',
  handle: 'name_to_handle_at(2): the mount is not exported',
  'inode-flags': 'attributes of ext4 by ioctl(2), which FUSE does not pass on to a daemon',
  ioprio: 'no file of the folder',
  procfs: 'another file system',
  rawdev: 'block devices',
  verity: 'fs-verity, which FUSE does not offer',
};

const KILL_AFTER_SECONDS = 120;

export interface StressorRun {
  readonly name: string;
  readonly folder: string;
  readonly seconds: number;
  readonly seed: number;
}

export type StressorOutcome =
  | { readonly kind: 'passed' }
  /** It says itself that it cannot run here. */
  | { readonly kind: 'skipped'; readonly said: string }
  | { readonly kind: 'failed'; readonly said: string };

/** stress-ng(1), EXIT STATUS. */
const NO_RESOURCE = 3;
const NOT_IMPLEMENTED = 4;

export const runStressor = async ({ name, folder, seconds, seed }: StressorRun): Promise<StressorOutcome> => {
  const args = [
    `--${name}`,
    '2',
    ...(STRESSORS[name] ?? []),
    '--timeout',
    `${seconds}s`,
    '--verify',
    '--seed',
    String(seed),
    '--temp-path',
    folder,
  ];
  const { code, signal, stdout, stderr } = await run('stress-ng', args, {
    cwd: folder,
    timeout: (seconds + KILL_AFTER_SECONDS) * 1000,
  });
  const said = `${signal ?? `exit ${code}`}: ${(stdout + stderr).split('\n').slice(0, 20).join('\n')}`;
  // What it prints of a stressor that skips itself has changed between versions; the word has not.
  if (code === NO_RESOURCE || code === NOT_IMPLEMENTED) return { kind: 'skipped', said };
  if (code === 0) return /skip/.test(stdout + stderr) ? { kind: 'skipped', said } : { kind: 'passed' };
  return { kind: 'failed', said };
};
