/**
 * A folder in which a case performs system calls, and the transcript of what they answered. The same case runs below
 * a mount and in a plain folder: equal transcripts are what "works like a local file system" means here.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { constants, lstatSync, readdirSync, readlinkSync, statfsSync, statSync } from 'node:fs';
import { asUser, errnoName, libc, posixFallocate } from './libc.js';

/** A name below the folder: text, or raw bytes where text cannot say it. */
export type Name = string | Buffer;

const AT_FDCWD = -100;
export const AT_SYMLINK_NOFOLLOW = 0x100;
export const AT_SYMLINK_FOLLOW = 0x400;
export const UTIME_NOW = 0x3fff_ffff;
export const UTIME_OMIT = 0x3fff_fffe;
export const SEEK_DATA = 3;
export const SEEK_HOLE = 4;
export const NOBODY = 65_534;
export const {
  O_RDONLY,
  O_WRONLY,
  O_RDWR,
  O_CREAT,
  O_EXCL,
  O_TRUNC,
  O_APPEND,
  O_DIRECTORY,
  O_NOFOLLOW,
  O_DIRECT,
  O_SYNC,
  O_DSYNC,
  O_NOATIME,
} = constants;
/** asm-generic/fcntl.h: __O_TMPFILE | O_DIRECTORY. */
export const O_TMPFILE = 0o20_000_000 | constants.O_DIRECTORY;
export const O_PATH = 0o10_000_000;

/** Seconds and nanoseconds, or UTIME_NOW / UTIME_OMIT as nanoseconds. */
export interface Timespec {
  readonly seconds: number;
  readonly nanoseconds: number;
}

const cString = (text: Name): Buffer => Buffer.concat([Buffer.from(text as string), Buffer.from([0])]);

const timespecs = (times: readonly [Timespec, Timespec]): Buffer => {
  const packed = Buffer.alloc(32);
  times.forEach(({ seconds, nanoseconds }, i) => {
    packed.writeBigInt64LE(BigInt(seconds), i * 16);
    packed.writeBigInt64LE(BigInt(nanoseconds), i * 16 + 8);
  });
  return packed;
};

/** Printable and short: long contents by their digest. */
const shown = (bytes: Buffer): string =>
  bytes.length <= 64
    ? JSON.stringify(bytes.toString('latin1'))
    : `${bytes.length} bytes ${createHash('sha256').update(bytes).digest('hex').slice(0, 16)}`;

const named = (name: Name): string =>
  typeof name === 'string' && name.length <= 80 ? name : shown(Buffer.from(name as string));

const codeOf = (error: unknown): string => (error as NodeJS.ErrnoException).code ?? String(error);

export class Workbench {
  readonly folder: string;
  readonly transcript: string[] = [];
  /** Answers that were not what the case says they must be. */
  readonly faults: string[] = [];
  /** What {@link allocated} found, in bytes. */
  readonly allocations: number[] = [];
  readonly #descriptors = new Set<number>();

  constructor(folder: string) {
    this.folder = folder;
  }

  /** Adds a line to the transcript. */
  note(what: string, outcome: unknown): void {
    this.transcript.push(`${what}: ${String(outcome)}`);
  }

  /** Every call in `body` must answer `wanted`: an error by its name, or a result. */
  expect(wanted: string | number, body: () => void): void {
    const from = this.transcript.length;
    body();
    const lines = this.transcript.slice(from);
    if (lines.length === 0) this.faults.push(`no call answers ${wanted}`);
    for (const line of lines)
      if (!line.endsWith(`: ${wanted}`)) this.faults.push(`${line} instead of ${wanted}`);
  }

  path(name: Name): string {
    return `${this.folder}/${name.toString()}`;
  }

  /** Closes whatever the case left open. */
  closeAll(): void {
    for (const fd of this.#descriptors) libc.close(fd);
    this.#descriptors.clear();
  }

  as<T>(uid: number, body: () => T): T {
    return asUser(uid, uid, body);
  }

  // Files

  open(name: Name, flags = O_RDWR, mode = 0o644): number {
    const fd = libc.openat(AT_FDCWD, this.#c(name), flags, mode);
    this.#said(`open ${named(name)} ${flags.toString(8)} ${mode.toString(8)}`, Math.min(fd, 0));
    if (fd >= 0) this.#descriptors.add(fd);
    return fd;
  }

  close(fd: number): void {
    this.#descriptors.delete(fd);
    this.#said('close', libc.close(fd));
  }

  /** Creates a file with these contents. */
  make(name: Name, contents: string | Buffer = '', mode = 0o644): void {
    const fd = this.open(name, O_WRONLY | O_CREAT | O_EXCL, mode);
    if (contents.length > 0) this.pwrite(fd, contents, 0);
    this.close(fd);
  }

  /** Whole contents through a new descriptor. */
  contents(name: Name): void {
    const fd = this.open(name, O_RDONLY);
    if (fd < 0) return;
    const parts: Buffer[] = [];
    for (;;) {
      const part = Buffer.alloc(65_536);
      const length = libc.read(fd, part, part.length);
      if (length < 0) this.#said('read', length);
      if (length <= 0) break;
      parts.push(part.subarray(0, length));
    }
    this.note(`contents ${named(name)}`, shown(Buffer.concat(parts)));
    this.close(fd);
  }

  write(fd: number, contents: string | Buffer): void {
    const bytes = Buffer.from(contents as string);
    this.#said(`write ${shown(bytes)}`, libc.write(fd, bytes, bytes.length));
  }

  pwrite(fd: number, contents: string | Buffer, offset: number): void {
    const bytes = Buffer.isBuffer(contents) ? contents : Buffer.from(contents);
    this.#said(`pwrite ${shown(bytes)} @${offset}`, libc.pwrite(fd, bytes, bytes.length, offset));
  }

  pread(fd: number, length: number, offset: number, into: Buffer = Buffer.alloc(length)): void {
    const result = libc.pread(fd, into, length, offset);
    this.note(
      `pread ${length} @${offset}`,
      result < 0 ? errnoName(-result) : shown(into.subarray(0, result)),
    );
  }

  lseek(fd: number, offset: number, whence: number): number {
    return this.#said(`lseek ${offset} ${whence}`, libc.lseek(fd, offset, whence));
  }

  /** The map of data and holes, exactly as SEEK_DATA and SEEK_HOLE tell it. */
  segments(fd: number): void {
    const found: string[] = [];
    for (let at = 0; ; ) {
      const data = libc.lseek(fd, at, SEEK_DATA);
      if (data < 0) {
        found.push(errnoName(-data));
        break;
      }
      at = libc.lseek(fd, data, SEEK_HOLE);
      found.push(`${data}-${at}`);
      if (at < 0) break;
    }
    this.note('segments', found.join(' '));
  }

  truncate(name: Name, size: number): void {
    this.#said(`truncate ${named(name)} ${size}`, libc.truncate(this.#c(name), size));
  }

  ftruncate(fd: number, size: number): void {
    this.#said(`ftruncate ${size}`, libc.ftruncate(fd, size));
  }

  fallocate(fd: number, mode: number, offset: number, length: number): void {
    this.#said(`fallocate ${mode} ${offset}+${length}`, libc.fallocate(fd, mode, offset, length));
  }

  fsync(fd: number): void {
    this.#said('fsync', libc.fsync(fd));
    this.#said('fdatasync', libc.fdatasync(fd));
  }

  syncfs(fd: number): void {
    this.#said('syncfs', libc.syncfs(fd));
  }

  copyRange(from: number, to: number, length: number): void {
    this.#said(`copy_file_range ${length}`, libc.copyFileRange(from, null, to, null, length, 0));
  }

  /** copy_file_range(2) between places given, not at the descriptors' own. */
  copyRangeAt(from: number, fromOffset: number, to: number, toOffset: number, length: number): void {
    const places = [fromOffset, toOffset].map((offset) => new BigInt64Array([BigInt(offset)]));
    this.#said(
      `copy_file_range ${length} @${fromOffset} to @${toOffset}`,
      libc.copyFileRange(from, places[0], to, places[1], length, 0),
    );
    this.note('places', places.join(' '));
  }

  posixFallocate(fd: number, offset: number, length: number): void {
    this.#said(`posix_fallocate ${offset}+${length}`, posixFallocate(fd, offset, length));
  }

  flock(fd: number, operation: number): void {
    this.#said(`flock ${operation}`, libc.flock(fd, operation));
  }

  /** A record lock (fcntl(2)): `type` 0 read, 1 write, 2 unlock. */
  lock(fd: number, command: number, type: number, start: number, length: number): void {
    const packed = Buffer.alloc(32);
    packed.writeInt16LE(type, 0);
    packed.writeBigInt64LE(BigInt(start), 8);
    packed.writeBigInt64LE(BigInt(length), 16);
    const result = libc.fcntlLock(fd, command, packed);
    this.#said(`lock ${command} ${type} ${start}+${length}`, result);
    this.note('lock found', packed.readInt16LE(0));
  }

  // Names

  mkdir(name: Name, mode = 0o755): void {
    this.#said(`mkdir ${named(name)} ${mode.toString(8)}`, libc.mkdir(this.#c(name), mode));
  }

  rmdir(name: Name): void {
    this.#said(`rmdir ${named(name)}`, libc.rmdir(this.#c(name)));
  }

  unlink(name: Name): void {
    this.#said(`unlink ${named(name)}`, libc.unlink(this.#c(name)));
  }

  rename(from: Name, to: Name): void {
    this.#said(`rename ${named(from)} ${named(to)}`, libc.rename(this.#c(from), this.#c(to)));
  }

  /** `flags`: 1 NOREPLACE, 2 EXCHANGE. */
  rename2(from: Name, to: Name, flags: number): void {
    this.#said(
      `renameat2 ${named(from)} ${named(to)} ${flags}`,
      libc.renameat2(AT_FDCWD, this.#c(from), AT_FDCWD, this.#c(to), flags),
    );
  }

  link(from: Name, to: Name, flags = 0): void {
    this.#said(
      `link ${named(from)} ${named(to)} ${flags}`,
      libc.linkat(AT_FDCWD, this.#c(from), AT_FDCWD, this.#c(to), flags),
    );
  }

  /** Gives an open descriptor (of an O_TMPFILE, say) a name. */
  linkDescriptor(fd: number, to: Name): void {
    const self = cString(`/proc/self/fd/${fd}`);
    this.#said(`link fd ${named(to)}`, libc.linkat(AT_FDCWD, self, AT_FDCWD, this.#c(to), AT_SYMLINK_FOLLOW));
  }

  /** `target` is stored as it is. */
  symlink(target: Name, name: Name): void {
    this.#said(`symlink ${named(target)} ${named(name)}`, libc.symlink(cString(target), this.#c(name)));
  }

  readlink(name: Name, length = 4096): void {
    const into = Buffer.alloc(length);
    const result = libc.readlink(this.#c(name), into, length);
    this.note(`readlink ${named(name)}`, result < 0 ? errnoName(-result) : shown(into.subarray(0, result)));
  }

  mknod(name: Name, mode: number, device = 0): void {
    this.#said(`mknod ${named(name)} ${mode.toString(8)} ${device}`, libc.mknod(this.#c(name), mode, device));
  }

  /** Names and kinds in a folder, in byte order. */
  list(name: Name = '.'): void {
    try {
      const entries = readdirSync(Buffer.from(this.path(name)), { withFileTypes: true, encoding: 'buffer' });
      const lines = entries.map((entry) => {
        const kind = entry.isDirectory() ? 'd' : entry.isSymbolicLink() ? 'l' : entry.isFile() ? 'f' : 'o';
        return `${kind} ${(entry.name as unknown as Buffer).toString('latin1')}`;
      });
      this.note(`list ${named(name)}`, shown(Buffer.from(lines.sort().join('\n'), 'latin1')));
    } catch (error) {
      this.note(`list ${named(name)}`, codeOf(error));
    }
  }

  /** Everything below a folder: kind, mode, owner, links, size, link target. */
  tree(name: Name = '.'): void {
    this.stat(name);
    let entries: string[];
    try {
      entries = readdirSync(this.path(name)).sort();
    } catch {
      return;
    }
    for (const entry of entries) {
      const below = `${name.toString()}/${entry}`;
      if (lstatSync(this.path(below)).isDirectory()) this.tree(below);
      else this.stat(below);
      if (lstatSync(this.path(below)).isSymbolicLink())
        this.note(`target ${below}`, readlinkSync(this.path(below)));
    }
  }

  // Attributes

  /** Everything of lstat(2) that must be the same in both places. */
  stat(name: Name): void {
    try {
      const s = lstatSync(this.path(name));
      const size = s.isDirectory() ? '-' : s.size;
      this.note(
        `stat ${named(name)}`,
        `${s.mode.toString(8)} links ${s.nlink} ${s.uid}:${s.gid} size ${size} rdev ${s.rdev}`,
      );
    } catch (error) {
      this.note(`stat ${named(name)}`, codeOf(error));
    }
  }

  /** Access and modification time to the nanosecond. */
  times(name: Name): void {
    const s = lstatSync(this.path(name), { bigint: true });
    this.note(`times ${named(name)}`, `${s.atimeNs} ${s.mtimeNs}`);
  }

  /** Which of the times moved while `body` ran, the change time included. */
  moves(name: Name, body: () => void): void {
    const before = lstatSync(this.path(name), { bigint: true });
    body();
    const after = lstatSync(this.path(name), { bigint: true });
    const moved = (['mtimeNs', 'ctimeNs'] as const).filter((key) => after[key] > before[key]);
    this.note(`moved ${named(name)}`, moved.join(' '));
  }

  /** Notes the allocated bytes once everything has been written back: apart, for they need not be equal. */
  allocated(name: Name): void {
    const fd = this.open(name, O_RDONLY);
    libc.fsync(fd);
    this.close(fd);
    this.allocations.push(statSync(this.path(name)).blocks * 512);
  }

  sameInode(a: Name, b: Name): void {
    this.note(
      `same inode ${named(a)} ${named(b)}`,
      statSync(this.path(a)).ino === statSync(this.path(b)).ino,
    );
  }

  statfs(): void {
    const s = statfsSync(this.folder);
    this.note('statfs', `${s.bsize} ${s.blocks} ${s.files}`);
  }

  chmod(name: Name, mode: number): void {
    this.#said(`chmod ${named(name)} ${mode.toString(8)}`, libc.chmod(this.#c(name), mode));
  }

  fchmod(fd: number, mode: number): void {
    this.#said(`fchmod ${mode.toString(8)}`, libc.fchmod(fd, mode));
  }

  /** -1 keeps an id. */
  chown(name: Name, uid: number, gid: number): void {
    this.#said(`chown ${named(name)} ${uid}:${gid}`, libc.chown(this.#c(name), uid >>> 0, gid >>> 0));
  }

  lchown(name: Name, uid: number, gid: number): void {
    this.#said(`lchown ${named(name)} ${uid}:${gid}`, libc.lchown(this.#c(name), uid >>> 0, gid >>> 0));
  }

  utimens(name: Name, access: Timespec, modification: Timespec, flags = 0): void {
    this.#said(
      `utimens ${named(name)} ${access.seconds}.${access.nanoseconds} ${modification.seconds}.${modification.nanoseconds}`,
      libc.utimensat(AT_FDCWD, this.#c(name), timespecs([access, modification]), flags),
    );
  }

  futimens(fd: number, access: Timespec, modification: Timespec): void {
    this.#said('futimens', libc.futimens(fd, timespecs([access, modification])));
  }

  access(name: Name, mode: number): void {
    const AT_EACCESS = 0x200;
    this.#said(`access ${named(name)} ${mode}`, libc.access(AT_FDCWD, this.#c(name), mode, AT_EACCESS));
  }

  // Extended attributes

  setxattr(name: Name, key: string, value: string | Buffer, flags = 0): void {
    const bytes = Buffer.from(value as string);
    this.#said(
      `setxattr ${named(name)} ${key} ${shown(bytes)} ${flags}`,
      libc.lsetxattr(this.#c(name), cString(key), bytes, bytes.length, flags),
    );
  }

  getxattr(name: Name, key: string, size = 65_536): void {
    const into = Buffer.alloc(size);
    const result = libc.lgetxattr(this.#c(name), cString(key), into, size);
    const value = result < 0 ? errnoName(-result) : size === 0 ? result : shown(into.subarray(0, result));
    this.note(`getxattr ${named(name)} ${key} ${size}`, value);
  }

  listxattr(name: Name, size = 65_536): void {
    const into = Buffer.alloc(size);
    const result = libc.llistxattr(this.#c(name), into, size);
    const keys = into.subarray(0, Math.max(result, 0)).toString('latin1').split('\0').sort().join(' ');
    this.note(`listxattr ${named(name)} ${size}`, result < 0 ? errnoName(-result) : `${result} ${keys}`);
  }

  removexattr(name: Name, key: string): void {
    this.#said(`removexattr ${named(name)} ${key}`, libc.lremovexattr(this.#c(name), cString(key)));
  }

  // Programs

  /** Runs a program in the folder; its output is noted with the folder's own path taken out. */
  run(command: string, ...args: string[]): void {
    const { status, stdout, stderr } = spawnSync(command, args, { cwd: this.folder, encoding: 'utf8' });
    const text = (stdout + stderr).replaceAll(this.folder, '').trim();
    this.note(`${command} ${args.join(' ')}`, `${status} ${text}`);
  }

  #c(name: Name): Buffer {
    return Buffer.concat([Buffer.from(`${this.folder}/`), cString(name)]);
  }

  /** Notes the result, an error by its name; returns it. */
  #said(what: string, result: number): number {
    this.note(what, result < 0 ? errnoName(-result) : result);
    return result;
  }
}

/** A case performs calls; what it must prove is that they answer alike everywhere. */
export type Case = (w: Workbench) => void;
/** By name: the name says what is exercised. */
export type Cases = Readonly<Record<string, Case>>;
