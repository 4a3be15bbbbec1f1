/**
 * Random operations on one file in the manner of fsx: what the file must hold is kept in memory, every read is compared
 * with it, and holes are compared with those of the backing file, which is the same inode below the mount.
 */
import koffi from 'koffi';
import { errnoName, libc, SharedMapping } from '../posix/libc.js';
import {
  O_APPEND,
  O_CREAT,
  O_DIRECT,
  O_EXCL,
  O_RDONLY,
  O_RDWR,
  O_SYNC,
  SEEK_DATA,
  SEEK_HOLE,
} from '../posix/workbench.js';
import { Random } from '../support/random.js';

const AT_FDCWD = -100;
const KEEP_SIZE = 1;
const PUNCH_HOLE = 2;
const ZERO_RANGE = 16;
const SEEK_END = 2;
const BLOCK = 4096;
const ENXIO = 6;
/** The greatest size that a file reaches. */
const FILE_BYTES_MAX = 512 * 1024;
const LONG_BYTES_MAX = 160 * 1024;
/** All contents are compared after so many operations, and at the end. */
const WHOLE_EVERY = 5000;
/** Operations remembered for the report of a failure. */
const HISTORY_MAX = 40;

const ZEROS = Buffer.alloc(FILE_BYTES_MAX);

export type FileAccess = 'buffered' | 'direct' | 'both' | 'sync';

export interface RandomFileOptions {
  /** Through the mount. */
  readonly path: string;
  /** The same file in the backing folder. */
  readonly backing: string;
  readonly seed: number;
  readonly operations: number;
  /** How the file is opened; `both`: two descriptors, one of each, used in turn. */
  readonly access: FileAccess;
  /** Whether a shared mapping is used beside the descriptors. */
  readonly mapped: boolean;
  /** Whether the transport has fallocate(2) and SEEK_HOLE. */
  readonly holes: boolean;
}

/** A page-aligned buffer, as O_DIRECT asks for. */
const alignedBuffer = (length: number): Buffer => {
  const room = Buffer.from(new ArrayBuffer(length + BLOCK));
  const past = Number(BigInt(koffi.address(room)) % BigInt(BLOCK));
  return room.subarray((BLOCK - past) % BLOCK, ((BLOCK - past) % BLOCK) + length);
};

const opened = (path: string, flags: number): number => {
  const fd = libc.openat(AT_FDCWD, Buffer.from(`${path}\0`), flags, 0o644);
  if (fd < 0) throw new Error(`open ${path}: ${errnoName(-fd)}`);
  return fd;
};

export class RandomFile {
  readonly #options: RandomFileOptions;
  readonly #random: Random;
  /** What the file must hold; zero beyond `#size`. */
  readonly #model = Buffer.alloc(FILE_BYTES_MAX);
  readonly #history: string[] = [];
  readonly #outgoing = alignedBuffer(FILE_BYTES_MAX);
  readonly #incoming = alignedBuffer(FILE_BYTES_MAX);
  #below: number;
  #size = 0;
  #buffered: number;
  #direct: number;
  /** Whether pages of the mapping may not have been written back. */
  #dirty = false;
  #done = 0;
  readonly counts: Record<string, number> = {};

  constructor(options: RandomFileOptions) {
    this.#options = options;
    this.#random = new Random(options.seed);
    libc.close(opened(options.path, O_RDWR | O_CREAT | O_EXCL));
    this.#buffered = this.#open(false);
    this.#direct = options.access === 'both' ? this.#open(true) : -1;
    this.#below = opened(options.backing, O_RDONLY);
  }

  /** Performs the next `count` operations; throws at the first that is answered wrongly. */
  run(count: number): void {
    const kinds = this.#kinds();
    for (let i = 0; i < count; i++) {
      const [name, perform] = this.#random.pick(kinds);
      this.counts[name] = (this.counts[name] ?? 0) + 1;
      perform();
      this.#done++;
      if (this.#done % WHOLE_EVERY === 0) this.#checkWhole();
    }
  }

  /** Compares all of it a last time, also with the backing file, and closes. */
  finish(): void {
    this.#checkWhole();
    this.close();
  }

  close(): void {
    for (const fd of [this.#buffered, this.#direct, this.#below]) if (fd >= 0) libc.close(fd);
    this.#buffered = -1;
    this.#direct = -1;
    this.#below = -1;
  }

  /** Each as often as it stands here. */
  #kinds(): readonly (readonly [string, () => void])[] {
    const { mapped, holes } = this.#options;
    return [
      ['write', () => this.#write()],
      ['write', () => this.#write()],
      ['write', () => this.#write()],
      ['read', () => this.#read()],
      ['read', () => this.#read()],
      ['read', () => this.#read()],
      ['truncate', () => this.#truncate()],
      ['append', () => this.#append()],
      ['copy', () => this.#copy()],
      ['size', () => this.#checkSize()],
      ['reopen or sync', () => this.#reopen()],
      ...(mapped
        ? ([
            ['mapped write', () => this.#mappedWrite()],
            ['mapped read', () => this.#mappedRead()],
          ] as const)
        : []),
      ...(holes
        ? ([
            ['punch', () => this.#fallocate(PUNCH_HOLE | KEEP_SIZE)],
            ['zero', () => this.#fallocate(ZERO_RANGE | (this.#random.chance(50) ? KEEP_SIZE : 0))],
            ['allocate', () => this.#fallocate(this.#random.chance(50) ? KEEP_SIZE : 0)],
            ['seek', () => this.#seek()],
          ] as const)
        : []),
    ];
  }

  #open(direct: boolean): number {
    const { access, path } = this.#options;
    const flags = direct || access === 'direct' ? O_DIRECT : access === 'sync' ? O_SYNC : 0;
    return opened(path, O_RDWR | flags);
  }

  /** A descriptor, and the unit in which it takes offsets, lengths and addresses. */
  #descriptor(): readonly [fd: number, unit: number] {
    if (this.#options.access === 'direct') return [this.#buffered, BLOCK];
    if (this.#direct >= 0 && this.#random.chance(50)) return [this.#direct, BLOCK];
    return [this.#buffered, 1];
  }

  #extent(unit: number, within = FILE_BYTES_MAX): readonly [offset: number, length: number] {
    const units = Math.floor(within / unit);
    const offset = this.#random.below(units);
    const longest = this.#random.chance(80) ? 2 * BLOCK : LONG_BYTES_MAX;
    const length = 1 + this.#random.below(Math.min(units - offset, Math.max(1, Math.floor(longest / unit))));
    return [offset * unit, length * unit];
  }

  /** No two are alike, so that a write that is lost or misplaced shows. */
  #contents(length: number): Buffer {
    const bytes = this.#outgoing.subarray(0, length).fill(1 + this.#random.below(255));
    for (let at = 0; at + 4 <= length; at += 512) bytes.writeUInt32LE(this.#random.next(), at);
    return bytes;
  }

  #write(): void {
    const [fd, unit] = this.#descriptor();
    const [offset, length] = this.#extent(unit);
    const bytes = this.#contents(length);
    this.#expect(`write ${length} @${offset}`, libc.pwrite(fd, bytes, length, offset), length);
    this.#put(bytes, offset);
  }

  #append(): void {
    if (this.#size + BLOCK > FILE_BYTES_MAX) return;
    const length = 1 + this.#random.below(BLOCK - 1);
    const bytes = this.#contents(length);
    const fd = opened(this.#options.path, O_RDWR | O_APPEND);
    const result = libc.write(fd, bytes, length);
    libc.close(fd);
    this.#expect(`append ${length} @${this.#size}`, result, length);
    this.#put(bytes, this.#size);
  }

  #read(): void {
    const [fd, unit] = this.#descriptor();
    const [offset, length] = this.#extent(unit);
    const wanted = Math.max(0, Math.min(length, this.#size - offset));
    const into = this.#incoming.subarray(0, length).fill(0xa5);
    this.#expect(`read ${length} @${offset}`, libc.pread(fd, into, length, offset), wanted);
    this.#compare('read', into.subarray(0, wanted), offset);
  }

  #truncate(): void {
    const size = this.#random.chance(20) ? this.#size : this.#random.below(FILE_BYTES_MAX);
    const result = this.#random.chance(50)
      ? libc.ftruncate(this.#buffered, size)
      : libc.truncate(Buffer.from(`${this.#options.path}\0`), size);
    this.#expect(`truncate ${size}`, result, 0);
    this.#model.fill(0, size);
    this.#size = size;
  }

  #copy(): void {
    // A descriptor with O_DIRECT copies whole blocks.
    const unit = this.#options.access === 'direct' ? BLOCK : 1;
    const half = Math.floor(this.#size / 2 / unit) * unit;
    if (half < 2 * BLOCK) return;
    const [from, length] = this.#extent(unit, half);
    const to = half + this.#random.below((FILE_BYTES_MAX - half - length) / unit) * unit;
    const places = [new BigInt64Array([BigInt(from)]), new BigInt64Array([BigInt(to)])];
    const result = libc.copyFileRange(this.#buffered, places[0], this.#buffered, places[1], length, 0);
    // It may copy less than asked; what it says it has copied is what counts.
    if (result <= 0 || result > length) this.#expect(`copy ${length} @${from} to ${to}`, result, length);
    this.#note(`copy ${result} @${from} to ${to}`);
    this.#put(Buffer.from(this.#model.subarray(from, from + result)), to);
  }

  #fallocate(mode: number): void {
    const [offset, length] = this.#extent(1);
    this.#expect(
      `fallocate ${mode} ${length} @${offset}`,
      libc.fallocate(this.#buffered, mode, offset, length),
      0,
    );
    if (mode & (PUNCH_HOLE | ZERO_RANGE)) this.#model.fill(0, offset, offset + length);
    if (!(mode & KEEP_SIZE)) this.#size = Math.max(this.#size, offset + length);
  }

  #mappedWrite(): void {
    if (this.#size === 0) return;
    const [offset, length] = this.#extent(1, this.#size);
    const bytes = this.#contents(length);
    const mapping = new SharedMapping(this.#buffered, this.#size);
    mapping.write(offset, bytes);
    const synced = this.#random.chance(30);
    if (synced) this.#expect('msync', mapping.sync(), 0);
    else this.#dirty = true;
    this.#expect('munmap', mapping.unmap(), 0);
    this.#note(`mapped write ${length} @${offset}${synced ? ', synced' : ''}`);
    this.#put(bytes, offset);
  }

  #mappedRead(): void {
    if (this.#size === 0) return;
    const [offset, length] = this.#extent(1, this.#size);
    const mapping = new SharedMapping(this.#buffered, this.#size);
    const bytes = mapping.read(offset, length);
    this.#expect('munmap', mapping.unmap(), 0);
    this.#note(`mapped read ${length} @${offset}`);
    this.#compare('mapped read', bytes, offset);
  }

  #reopen(): void {
    const choice = this.#random.below(4);
    if (choice === 0) this.#expect('fsync', libc.fsync(this.#buffered), 0);
    else if (choice === 1) this.#expect('fdatasync', libc.fdatasync(this.#buffered), 0);
    else {
      this.#note('reopen');
      libc.close(this.#buffered);
      this.#buffered = this.#open(false);
    }
  }

  #checkSize(): void {
    this.#expect('seek to the end', libc.lseek(this.#buffered, 0, SEEK_END), this.#size);
  }

  /** The mount must find what the backing file has, and no byte but zero may lie in what it calls a hole. */
  #seek(): void {
    this.#settle();
    const from = this.#random.below(FILE_BYTES_MAX);
    for (const whence of [SEEK_DATA, SEEK_HOLE])
      this.#expect(
        `seek ${whence} @${from}`,
        libc.lseek(this.#buffered, from, whence),
        libc.lseek(this.#below, from, whence),
      );
    const data = libc.lseek(this.#buffered, from, SEEK_DATA);
    const end = data === -ENXIO ? this.#size : data;
    if (from < end && !this.#model.subarray(from, end).equals(ZEROS.subarray(from, end)))
      this.#fail(`data between ${from} and ${end}, where SEEK_DATA sees a hole`);
  }

  /** Pages written through a mapping reach the backing file by fsync(2). */
  #settle(): void {
    if (!this.#dirty) return;
    this.#expect('fsync', libc.fsync(this.#buffered), 0);
    this.#dirty = false;
  }

  #checkWhole(): void {
    this.#checkSize();
    this.#settle();
    for (const [what, path] of Object.entries({
      mount: this.#options.path,
      'backing file': this.#options.backing,
    })) {
      const fd = opened(path, O_RDONLY);
      const into = this.#incoming.fill(0xa5);
      const length = libc.pread(fd, into, FILE_BYTES_MAX, 0);
      libc.close(fd);
      this.#expect(`whole of the ${what}`, length, this.#size);
      this.#compare(`whole of the ${what}`, into.subarray(0, length), 0);
    }
  }

  #put(bytes: Buffer, offset: number): void {
    bytes.copy(this.#model, offset);
    this.#size = Math.max(this.#size, offset + bytes.length);
  }

  #compare(what: string, bytes: Buffer, offset: number): void {
    const wanted = this.#model.subarray(offset, offset + bytes.length);
    if (bytes.equals(wanted)) return;
    const first = bytes.findIndex((byte, i) => byte !== wanted[i]);
    const differing = bytes.reduce((count, byte, i) => count + (byte === wanted[i] ? 0 : 1), 0);
    this.#fail(
      `${what}: ${differing} bytes differ, the first at ${offset + first}: ${bytes[first]} instead of ${wanted[first]}`,
    );
  }

  #expect(what: string, result: number, wanted: number): void {
    this.#note(what);
    if (result === wanted) return;
    const shown = (value: number): string => (value < 0 ? errnoName(-value) : String(value));
    this.#fail(`${what} answers ${shown(result)} instead of ${shown(wanted)}`);
  }

  #note(what: string): void {
    this.#history.push(what);
    if (this.#history.length > HISTORY_MAX) this.#history.shift();
  }

  #fail(what: string): never {
    const { seed, access, mapped } = this.#options;
    throw new Error(
      `operation ${this.#done} (seed ${seed}, ${access}${mapped ? ', mapped' : ''}, size ${this.#size}): ${what}\n` +
        `last operations:\n  ${this.#history.join('\n  ')}`,
    );
  }
}
