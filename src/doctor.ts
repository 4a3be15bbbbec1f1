/** What a host must offer before `mount` can work, checked one by one. */
import {
  closeSync,
  constants,
  ftruncateSync,
  openSync,
  readFileSync,
  statfsSync,
  statSync,
  unlinkSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { createServer } from 'node:net';
import { release } from 'node:os';
import { join } from 'node:path';
import { connect } from './control/control-client.js';
import type { HostPort } from './leaves/host-port.js';
import { formatHostPort } from './leaves/host-port.js';
import { formatSize } from './leaves/quantity.js';
import { KiB } from './leaves/units.js';

interface Finding {
  readonly level: 'ok' | 'warn' | 'fail';
  readonly what: string;
  readonly found: string;
  readonly remedy?: string;
}

interface DoctorOptions {
  readonly imageDir?: string | undefined;
  readonly listen: HostPort;
  readonly data: HostPort;
}

const NODE_MIN = [20, 19] as const;
/** FUSE protocol 7.34: what the own transport assumes. */
const KERNEL_MIN = [5, 14] as const;
/** FUSE protocol 7.39: mmap of files that are opened O_DIRECT, parallel direct writes. */
const KERNEL_GOOD = [6, 6] as const;
const CAP_NET_ADMIN = 12n;
const CAP_SYS_ADMIN = 21n;
const OPEN_FILES_GOOD = 4096;
const FREE_FRACTION_GOOD = 0.1;
const PROBE_BYTES = 256 * KiB;
/** Beside the attribute of the records, which a mount of MigrateFS hides. */
const PROBE_XATTR = 'trusted.migratefs-doctor';

type Check = () => Finding | Promise<Finding>;

const ok = (what: string, found: string): Finding => ({ level: 'ok', what, found });
const warn = (what: string, found: string, remedy: string): Finding => ({
  level: 'warn',
  what,
  found,
  remedy,
});
const fail = (what: string, found: string, remedy: string): Finding => ({
  level: 'fail',
  what,
  found,
  remedy,
});

const messageOf = (error: unknown): string => (error as Error).message.split('\n')[0] ?? '';

const isAtLeast = (version: string, [major, minor]: readonly [number, number]): boolean => {
  const [haveMajor = 0, haveMinor = 0] = version.split('.').map((part) => Number.parseInt(part, 10));
  return haveMajor > major || (haveMajor === major && haveMinor >= minor);
};

const node: Check = () => {
  const { node: version } = process.versions;
  return isAtLeast(version, NODE_MIN)
    ? ok('node', version)
    : fail('node', version, `install Node.js ${NODE_MIN.join('.')} or newer`);
};

const kernel: Check = () => {
  if (process.platform !== 'linux') return fail('kernel', process.platform, 'MigrateFS runs on Linux');
  const version = release();
  if (!isAtLeast(version, KERNEL_MIN))
    return fail('kernel', version, `boot Linux ${KERNEL_MIN.join('.')} or newer (FUSE protocol 7.34)`);
  return isAtLeast(version, KERNEL_GOOD)
    ? ok('kernel', version)
    : warn(
        'kernel',
        version,
        `works; from ${KERNEL_GOOD.join('.')} on also mmap of files opened with O_DIRECT`,
      );
};

const fuseDevice: Check = () => {
  try {
    closeSync(openSync('/dev/fuse', constants.O_RDWR));
    return ok('/dev/fuse', 'can be opened');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENODEV')
      return fail('/dev/fuse', 'missing', 'modprobe fuse; in a container start it with --device /dev/fuse');
    return fail('/dev/fuse', messageOf(error), 'run as root; in a container allow the device 10:229');
  }
};

const isCapable = (capability: bigint): boolean => {
  const effective = /^CapEff:\s*([0-9a-f]+)/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '0';
  return ((BigInt(`0x${effective}`) >> capability) & 1n) === 1n;
};

const rights: Check = () => {
  const who = process.getuid?.() === 0 ? 'root' : `uid ${process.getuid?.()}`;
  if (isCapable(CAP_SYS_ADMIN)) return ok('rights', `${who} with CAP_SYS_ADMIN`);
  return fail(
    'rights',
    `${who} without CAP_SYS_ADMIN`,
    'run as root; in a container add --cap-add SYS_ADMIN',
  );
};

const libc: Check = async () => {
  const report = process.report?.getReport() as { header?: { glibcVersionRuntime?: string } } | undefined;
  const version = report?.header?.glibcVersionRuntime;
  try {
    await import('./fs/libc.js');
    return ok('libc', `glibc ${version ?? 'unknown'}, bound by koffi`);
  } catch (error) {
    const remedy = version
      ? 'run `npm ci` again on this machine'
      : 'use a system with glibc (Debian 11 or newer)';
    return fail('libc', messageOf(error), remedy);
  }
};

const fuseNative: Check = () => {
  try {
    createRequire(import.meta.url)('fuse-native');
    return ok('fuse-native', 'loads (only for --transport fuse-native)');
  } catch (error) {
    return warn(
      'fuse-native',
      messageOf(error),
      '`npm ci` again, or stay with the default --transport kernel',
    );
  }
};

const mountHelper: Check = () => ok('mount helper', 'none needed: mount(2) is called directly');

const openFiles: Check = () => {
  const hard = /^Max open files\s+\S+\s+(\S+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1] ?? '0';
  return hard === 'unlimited' || Number(hard) >= OPEN_FILES_GOOD
    ? ok('open files', `limit ${hard}`)
    : warn(
        'open files',
        `limit ${hard}`,
        `raise it: ulimit -n ${OPEN_FILES_GOOD}, or LimitNOFILE= in the unit`,
      );
};

const WMEM_MAX = '/proc/sys/net/core/wmem_max';

/** Without the capability a socket gets no more than `wmem_max`, and the kernel takes twice as much for it. */
const sendBuffer: Check = async () => {
  const what = 'send buffers';
  if (isCapable(CAP_NET_ADMIN)) return ok(what, 'CAP_NET_ADMIN');
  let wmemMax: number | undefined;
  try {
    wmemMax = Number(readFileSync(WMEM_MAX, 'utf8'));
    const { LANE_SEND_BUFFER } = await import('./fs/mirror-lane.js');
    if (2 * wmemMax >= LANE_SEND_BUFFER) return ok(what, `net.core.wmem_max ${wmemMax}`);
  } catch {
    // Older kernels show it outside of containers only; what is wrong with libc has been said.
  }
  return warn(
    what,
    `without CAP_NET_ADMIN, net.core.wmem_max ${wmemMax ?? 'unknown'}`,
    'images in sync are mirrored slower: in a container add --cap-add NET_ADMIN, or raise net.core.wmem_max',
  );
};

const canListen = ({ host, port }: HostPort): Promise<Error | undefined> =>
  new Promise((resolve) => {
    const server = createServer();
    server.once('error', resolve);
    server.listen({ host, port }, () => server.close(() => resolve(undefined)));
  });

/** A daemon that runs already is no fault; it is recognised by its answer on the control port. */
const port =
  (what: string, option: string, address: HostPort, control: HostPort): Check =>
  async () => {
    const text = formatHostPort(address);
    const error = await canListen(address);
    if (!error) return ok(what, `${text} is free`);
    if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE')
      return fail(what, `${text}: ${messageOf(error)}`, `give another one with ${option}`);
    try {
      using client = connect({ server: control });
      const { version, pid, dataAddress } = await client.status();
      if (address === control || dataAddress === text)
        return ok(what, `${text} is served by migratefs ${version}, pid ${pid}`);
    } catch {
      // Not a daemon of ours, or one that wants a certificate.
    }
    return warn(
      what,
      `${text} is in use`,
      `give another one with ${option}, or stop what uses it (ss -ltnp)`,
    );
  };

const directory = (dir: string): Check => {
  const what = 'image directory';
  return () => {
    try {
      if (!statSync(dir).isDirectory()) return fail(what, `${dir} is not a directory`, 'give a directory');
      const { bsize, blocks, bavail } = statfsSync(dir);
      const free = `${dir}, ${formatSize(bavail * bsize)} free`;
      return bavail / Math.max(1, blocks) >= FREE_FRACTION_GOOD
        ? ok(what, free)
        : warn(what, free, 'an incoming image is refused when it does not fit: make room');
    } catch (error) {
      const remedy =
        (error as NodeJS.ErrnoException).code === 'ENOTCONN'
          ? `a daemon has died there: umount -l ${dir}`
          : 'create it, or give another one';
      return fail(what, messageOf(error), remedy);
    }
  };
};

/** Tries on a file of its own what images need of the file system below them. */
const backing = (dir: string): Check => {
  const what = 'backing file system';
  return async () => {
    const path = join(dir, `.migratefs-doctor-${process.pid}`);
    let fd: number | undefined;
    try {
      const { cString, fallocate, fsetxattr, lseek, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, SEEK_DATA } =
        await import('./fs/libc.js');
      fd = openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, 0o600);
      const value = Buffer.from('1');
      if (fsetxattr(fd, cString(PROBE_XATTR), value, value.length, 0) < 0)
        return fail(what, 'no trusted.* extended attributes', 'use ext4, xfs, btrfs or tmpfs, as root');
      ftruncateSync(fd, PROBE_BYTES);
      const punched = fallocate(fd, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, 0, PROBE_BYTES);
      // ENXIO: no data at all, so the hole is known as one.
      const holes = punched === 0 && lseek(fd, 0, SEEK_DATA) < 0;
      return holes
        ? ok(what, 'trusted attributes, holes and hole punching work')
        : warn(
            what,
            'does not report or punch holes',
            'images will not stay sparse: use ext4, xfs, btrfs or tmpfs',
          );
    } catch (error) {
      return fail(what, messageOf(error), 'make the directory writable for root, on a local file system');
    } finally {
      if (fd !== undefined) {
        closeSync(fd);
        unlinkSync(path);
      }
    }
  };
};

/** Every check in order; none throws. */
export const checkHost = async ({ imageDir, listen, data }: DoctorOptions): Promise<readonly Finding[]> => {
  const checks: Check[] = [
    node,
    kernel,
    fuseDevice,
    rights,
    libc,
    mountHelper,
    fuseNative,
    openFiles,
    sendBuffer,
    port('control port', '--listen', listen, listen),
    port('data port', '--data', data, listen),
    ...(imageDir === undefined ? [] : [directory(imageDir), backing(imageDir)]),
  ];
  const findings: Finding[] = [];
  for (const check of checks) findings.push(await check());
  return findings;
};
