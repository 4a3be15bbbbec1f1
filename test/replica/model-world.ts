import type { BackingCalls } from '../../src/fs/backing-calls.js';
import { FALLOC_FL_PUNCH_HOLE } from '../../src/fs/libc.js';
import type { Change, ImagePort, Segment, Settled, WirePort } from '../../src/replica/source/ports.js';

/** mulberry32: small, seeded, good enough to pick interleavings. */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }

  below(limit: number): number {
    return Math.floor(this.next() * limit);
  }

  chance(probability: number): boolean {
    return this.next() < probability;
  }
}

/** A file in memory; bytes past `size` are always zero. */
export class MemoryFile {
  readonly bytes: Uint8Array;
  size = 0;

  constructor(capacity: number) {
    this.bytes = new Uint8Array(capacity);
  }

  write(data: Uint8Array, offset: number): void {
    this.bytes.set(data, offset);
    this.size = Math.max(this.size, offset + data.length);
  }

  resize(size: number): void {
    if (size < this.size) this.bytes.fill(0, size, this.size);
    this.size = size;
  }

  punch(offset: number, length: number): void {
    this.bytes.fill(0, offset, Math.min(offset + length, this.size));
  }

  get content(): Uint8Array {
    return this.bytes.subarray(0, this.size);
  }
}

/** Where, within a system call, other threads may get in. */
export type Hook = (point: 'before' | 'middle' | 'after') => void;

export const memoryCalls = (file: MemoryFile, hook: () => Hook): BackingCalls => ({
  pwrite: (_fd, data, length, offset) => {
    const half = length >>> 1;
    hook()('before');
    file.write(data.subarray(0, half), offset);
    hook()('middle');
    file.write(data.subarray(half, length), offset + half);
    hook()('after');
    return length;
  },
  fallocate: (_fd, mode, offset, length) => {
    hook()('before');
    if ((mode & FALLOC_FL_PUNCH_HOLE) !== 0) file.punch(offset, length);
    else file.size = Math.max(file.size, offset + length);
    hook()('after');
    return 0;
  },
  ftruncate: (_fd, size) => {
    hook()('before');
    file.resize(size);
    hook()('after');
    return 0;
  },
  fsync: () => 0,
  fileSize: () => file.size,
});

interface PendingRead {
  readonly into: Uint8Array;
  readonly offset: number;
  filled: number;
  readonly resolve: (read: number) => void;
}

/** The copier's view; a read takes the bytes in two steps that the scheduler chooses, so it can be torn. */
export class MemoryImage implements ImagePort {
  readonly reads: PendingRead[] = [];
  readonly #file: MemoryFile;
  readonly #blockSize: number;

  constructor(file: MemoryFile, blockSize: number) {
    this.#file = file;
    this.#blockSize = blockSize;
  }

  size(): number {
    return this.#file.size;
  }

  nextData(offset: number): { offset: number; length: number } | null {
    for (let at = offset; at < this.#file.size; at = this.#blockEnd(at)) {
      const end = Math.min(this.#blockEnd(at), this.#file.size);
      if (this.#holdsData(at, end)) return { offset: at, length: end - at };
    }
    return null;
  }

  segments(offset: number, length: number): Segment[] {
    const segments: Segment[] = [];
    for (let at = offset; at < offset + length; ) {
      const end = Math.min(this.#blockEnd(at), offset + length);
      const fileEnd = Math.min(end, Math.max(at, this.#file.size));
      if (fileEnd > at)
        segments.push({ offset: at, length: fileEnd - at, data: this.#holdsData(at, fileEnd) });
      if (end > fileEnd) segments.push({ offset: fileEnd, length: end - fileEnd, data: false });
      at = end;
    }
    return segments;
  }

  read(into: Uint8Array, offset: number): Promise<number> {
    return new Promise((resolve) => this.reads.push({ into, offset, filled: 0, resolve }));
  }

  /** Takes the next half of a pending read. */
  step(index: number): void {
    const read = this.reads[index]!;
    const end = read.filled === 0 ? Math.max(1, read.into.length >>> 1) : read.into.length;
    const from = read.offset + read.filled;
    const available = Math.max(0, Math.min(read.offset + end, this.#file.size) - from);
    read.into.set(this.#file.bytes.subarray(from, from + available), read.filled);
    const short = available < end - read.filled;
    read.filled += available;
    if (!short && end < read.into.length) return;
    this.reads.splice(index, 1);
    read.resolve(read.filled);
  }

  #blockEnd(at: number): number {
    return (Math.floor(at / this.#blockSize) + 1) * this.#blockSize;
  }

  #holdsData(from: number, to: number): boolean {
    return this.#file.bytes.subarray(from, to).some((byte) => byte !== 0);
  }
}

interface Sent {
  readonly change: Change;
  readonly settled: Settled;
  /** Of the payload when it was sent: it must not change under way. */
  readonly copy: Uint8Array | null;
}

/** A connection and the target behind it: frames arrive in order, acks come back in any. */
export class MemoryWire implements WirePort {
  readonly target: MemoryFile;
  readonly queue: Sent[] = [];
  readonly applied: Sent[] = [];
  open = true;
  readonly #losesSilently: boolean;

  constructor(target: MemoryFile, losesSilently: boolean) {
    this.target = target;
    this.#losesSilently = losesSilently;
  }

  get inFlight(): number {
    return this.queue.length + this.applied.length;
  }

  send(change: Change, settled: Settled): void {
    if (!this.open) {
      settled('lost');
      return;
    }
    const copy = change.kind === 'data' ? Uint8Array.from(change.payload) : null;
    this.queue.push({ change, settled, copy });
  }

  deliver(): void {
    const sent = this.queue.shift()!;
    this.#apply(sent);
    this.applied.push(sent);
  }

  acknowledge(index: number): void {
    const [sent] = this.applied.splice(index, 1);
    sent!.settled('acked');
  }

  lose(): void {
    this.open = false;
    for (const { settled } of [...this.applied.splice(0), ...this.queue.splice(0)])
      settled(this.#losesSilently ? 'acked' : 'lost');
  }

  #apply({ change, copy }: Sent): void {
    switch (change.kind) {
      case 'data':
        if (Buffer.compare(change.payload, copy!) !== 0) throw new Error('payload changed under way');
        this.target.write(change.payload, change.offset);
        return;
      case 'hole':
        this.target.punch(change.offset, change.length);
        return;
      case 'resize':
        this.target.resize(change.size);
        return;
      case 'allocate':
        if ((change.mode & 1) === 0)
          this.target.size = Math.max(this.target.size, change.offset + change.length);
        return;
      case 'sync':
        return;
      default:
        change satisfies never;
    }
  }
}
