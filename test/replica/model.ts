import assert from 'node:assert/strict';
import type { BackingCalls } from '../../src/fs/backing-calls.js';
import type { DirtyBitmap } from '../../src/fs/dirty-bitmap.js';
import { ImageIo, ROUTED } from '../../src/fs/image-io.js';
import { GraceCounters, ImageMode, ImageTable } from '../../src/fs/image-table.js';
import { FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE } from '../../src/fs/libc.js';
import type { BitmapAnnouncement, RoutedRequest } from '../../src/fs/participant.js';
import type { BlockIndex } from '../../src/leaves/units.js';
import { bytes } from '../../src/leaves/units.js';
import { BufferPool } from '../../src/replica/source/buffer-pool.js';
import { nextRun } from '../../src/replica/source/copier.js';
import { SourceImage } from '../../src/replica/source/source-image.js';
import { Window } from '../../src/replica/source/window.js';
import { MemoryFile, MemoryImage, MemoryWire, memoryCalls, Random } from './model-world.js';

/** A rule of the protocol that is broken on purpose; the model must notice. */
export type Break =
  | 'none'
  | 'mark-before-write'
  | 'clear-after-read'
  | 'no-grace'
  | 'no-re-mark'
  | 'no-extent-lock'
  | 'perform-while-offered'
  | 'refuse-while-offered';

const BLOCK = bytes(4096);
/** Each writer owns a range that begins and ends within a block; the last range is shared by two. */
const RANGE = 2 * BLOCK + 1000;
const WRITERS = 5;
const CAPACITY = 4 * RANGE + BLOCK;
const EXTENT_BYTES = 2 * BLOCK;
const COPIES_MAX = 3;
const ACTIVE_STEPS = 160;
const STEPS_MAX = 4000;
const NESTING_MAX = 3;
const SLOT = 1;

interface Writer {
  readonly id: number;
  readonly io: Pick<ImageIo, 'write' | 'fallocate' | 'truncate'>;
  inside: boolean;
  waiting: boolean;
}

const same = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0;

interface Operation {
  readonly offset: number;
  readonly data: Uint8Array;
  readonly punch: boolean;
}

/** The order that loses updates: the bits are set before the bytes are there. */
class MarkFirstIo {
  readonly #table: ImageTable;
  readonly #grace: GraceCounters;
  readonly #id: number;
  readonly #calls: BackingCalls;
  readonly #bitmap: () => DirtyBitmap;

  constructor(
    table: ImageTable,
    grace: GraceCounters,
    id: number,
    calls: BackingCalls,
    bitmap: () => DirtyBitmap,
  ) {
    this.#table = table;
    this.#grace = grace;
    this.#id = id;
    this.#calls = calls;
    this.#bitmap = bitmap;
  }

  write(_slot: number, fd: number, data: Uint8Array, length: number, offset: number): number {
    return this.#change(offset, length, () => this.#calls.pwrite(fd, data, length, offset));
  }

  fallocate(_slot: number, fd: number, mode: number, offset: number, length: number): number {
    return this.#change(offset, length, () => this.#calls.fallocate(fd, mode, offset, length));
  }

  truncate(_slot: number, fd: number, size: number): number {
    const before = this.#calls.fileSize(fd);
    const from = Math.min(before, size);
    return this.#change(from, Math.max(before, size) - from, () => this.#calls.ftruncate(fd, size));
  }

  #change(offset: number, length: number, perform: () => number): number {
    this.#grace.enter(this.#id, SLOT);
    try {
      const mode = this.#table.mode(SLOT);
      if (mode === ImageMode.routed) return ROUTED;
      if (mode === ImageMode.fenced) return -30;
      if (mode === ImageMode.tracked) this.#bitmap().mark(offset, length);
      return perform();
    } finally {
      this.#grace.exit(this.#id);
    }
  }
}

/**
 * Threads as steps of a seeded scheduler: several writers through the real ImageIo (others get in before, within and
 * after each system call), the real copier, routed writer, bitmap, locks, tables and grace counters, over a wire and
 * a target in memory. The driver below does what SourceMigration does at its phase edges.
 */
export class Model {
  readonly #random: Random;
  readonly #broken: Break;
  readonly #source = new MemoryFile(CAPACITY);
  readonly #target = new MemoryFile(CAPACITY);
  /** What guests were told is written, in the ranges with one owner. */
  readonly #acked: MemoryFile = new MemoryFile(CAPACITY);
  readonly #table = new ImageTable();
  readonly #grace = new GraceCounters();
  readonly #writers: Writer[] = [];
  readonly #wire: MemoryWire;
  readonly #port: MemoryImage;
  readonly #image: SourceImage;
  readonly #routed: { request: RoutedRequest; reply: (result: number) => void }[] = [];
  /** What a limit of the network makes wait. */
  readonly #tokens = new Set<() => void>();
  readonly #lateClears: { from: BlockIndex; to: BlockIndex }[] = [];
  #announcement: BitmapAnnouncement | undefined;
  #depth = 0;
  #truncating = false;
  #cursor = 0;
  #copies = 0;
  #phase:
    | 'idle'
    | 'starting'
    | 'tracked'
    | 'routing'
    | 'mirror'
    | 'fencing'
    | 'offered'
    | 'taken'
    | 'given back' = 'idle';
  #graceOver = false;
  #limited = false;
  #quiet = false;
  #failure: unknown;
  /** The source at the moment of the offer. */
  #offered: Uint8Array | undefined;
  /** Guests that were answered with an error. */
  #refused = 0;
  readonly trace: string[] = [];

  constructor(seed: number, broken: Break) {
    this.#random = new Random(seed);
    this.#broken = broken;
    this.#wire = new MemoryWire(this.#target, broken === 'no-re-mark');
    this.#port = new MemoryImage(this.#source, BLOCK);
    const calls = memoryCalls(this.#source, () => (point) => this.#hook(point));
    this.#fillSource();
    this.#image = new SourceImage({
      index: 0,
      name: 'image',
      pinned: {
        slot: SLOT,
        fd: 0,
        size: bytes(CAPACITY),
        allocated: bytes(CAPACITY),
        mode: 0,
        uid: 0,
        gid: 0,
        record: null,
      },
      blockSize: BLOCK,
      capacity: bytes(2 * CAPACITY),
      table: this.#table,
      calls: memoryCalls(this.#source, () => () => {}),
      port: this.#port,
      wire: this.#wire,
      buffers: new BufferPool(),
      counters: { sent: () => {}, acked: () => {} },
      takeDisk: () => undefined,
      takeNet: (_amount, { signal }) => this.#takeNet(signal),
      mirrorWindow: new Window(() => 2 * BLOCK),
      syncBothSides: () => true,
      flush: () => Promise.resolve(0),
      announce: (announcement) => {
        this.#announcement = announcement;
      },
      onProgress: () => {},
      onSettled: () => {},
    });
    if (broken === 'no-extent-lock')
      this.#image.locks.acquire = (offset, length, mode) => ({ offset, length, mode });
    if (broken === 'no-extent-lock') this.#image.locks.release = () => {};
    if (broken === 'clear-after-read') this.#deferClears();
    for (let id = 0; id < WRITERS; id++) {
      const io =
        broken === 'mark-before-write'
          ? new MarkFirstIo(this.#table, this.#grace, id, calls, () => this.#image.bitmap)
          : this.#imageIo(id, calls);
      this.#writers.push({ id, io, inside: false, waiting: false });
    }
  }

  /** Throws when a guarantee is broken. */
  async run(): Promise<void> {
    for (let step = 0; !this.#ended; step++) {
      this.#quiet = step > ACTIVE_STEPS;
      assert(step < STEPS_MAX, 'the migration does not end');
      this.#step();
      await new Promise((resolve) => setImmediate(resolve));
      if (this.#failure) throw this.#failure;
    }
    this.#check();
  }

  /** The target has answered, and so is every guest. */
  get #ended(): boolean {
    const answered = this.#phase === 'taken' || this.#phase === 'given back';
    return answered && this.#routed.length === 0 && this.#writers.every(({ waiting }) => !waiting);
  }

  #assertAsOffered(): void {
    assert(same(this.#offered!, this.#source.content), 'G3: the source changed after the offer');
  }

  #check(): void {
    if (this.#phase === 'taken') {
      this.#assertAsOffered();
      assert.equal(this.#image.bitmap.recount(), 0, 'blocks are dirty after the offer');
      assert.equal(this.#target.size, this.#source.size, 'G2: the sizes differ');
      assert(same(this.#target.content, this.#source.content), 'G2: the contents differ');
    } else assert.equal(this.#refused, 0, 'G4: the source keeps the image, and refused a change');
    const owned = Math.min(3 * RANGE, this.#source.size);
    assert(
      same(this.#acked.bytes.subarray(0, owned), this.#source.bytes.subarray(0, owned)),
      'G1: an acknowledged write is not on the source',
    );
  }

  #fillSource(): void {
    const size = BLOCK + this.#random.below(CAPACITY - BLOCK);
    for (let at = 0; at < size; at += BLOCK)
      if (this.#random.chance(0.6))
        this.#source.bytes.fill(1 + this.#random.below(200), at, Math.min(at + BLOCK, size));
    this.#source.size = size;
    this.#acked.bytes.set(this.#source.bytes);
    this.#acked.size = size;
  }

  #takeNet(signal: AbortSignal): Promise<void> | undefined {
    if (this.#random.chance(0.5)) return undefined;
    return new Promise((resolve, reject) => {
      const grant = (): void => {
        this.#tokens.delete(grant);
        resolve();
      };
      this.#tokens.add(grant);
      signal.addEventListener('abort', () => {
        this.#tokens.delete(grant);
        reject(signal.reason as Error);
      });
    });
  }

  #imageIo(id: number, calls: BackingCalls): ImageIo {
    const io: ImageIo = new ImageIo(this.#table, this.#grace, id, calls, () => {
      if (this.#announcement) io.announce(this.#announcement);
    });
    return io;
  }

  #deferClears(): void {
    const { bitmap } = this.#image;
    const clear = bitmap.clear.bind(bitmap);
    bitmap.clear = (from, to) => {
      this.#lateClears.push({ from, to });
      return 0;
    };
    const read = this.#port.read.bind(this.#port);
    const flush = (): void => {
      for (const { from, to } of this.#lateClears.splice(0)) clear(from, to);
    };
    this.#port.read = (into, offset) => read(into, offset).finally(flush);
    const segments = this.#port.segments.bind(this.#port);
    this.#port.segments = (offset, length) => {
      const found = segments(offset, length);
      if (found.every(({ data }) => !data)) flush();
      return found;
    };
  }

  /** Another thread gets in. */
  #hook(_point: string): void {
    if (this.#depth >= NESTING_MAX) return;
    this.#depth++;
    while (this.#random.chance(0.45)) this.#step();
    this.#depth--;
  }

  #step(): void {
    const actions = this.#actions();
    if (actions.length === 0) return;
    const [name, act] = actions[this.#random.below(actions.length)]!;
    this.trace.push(`${'  '.repeat(this.#depth)}${name}`);
    act();
  }

  #actions(): [string, () => void][] {
    const actions: [string, () => void][] = [];
    const add = (name: string, act: () => void): void => void actions.push([name, act]);
    if (!this.#quiet && !this.#truncating) {
      for (const writer of this.#writers)
        if (!writer.inside && !writer.waiting) add(`write ${writer.id}`, () => this.#write(writer));
      const alone = this.#writers.every((writer) => !writer.inside && !writer.waiting);
      if (alone && this.#random.chance(0.3)) add('truncate', () => this.#truncate(this.#writers[0]!));
    }
    for (let i = 0; i < this.#routed.length; i++) add('handle routed', () => this.#handleRouted());
    for (let i = 0; i < this.#port.reads.length; i++) add(`read ${i}`, () => this.#port.step(i));
    for (const grant of this.#tokens) add('grant tokens', grant);
    if (this.#wire.queue.length > 0) add('deliver', () => this.#wire.deliver());
    for (let i = 0; i < this.#wire.applied.length; i++) add(`ack ${i}`, () => this.#wire.acknowledge(i));
    this.#driverActions(add);
    return actions;
  }

  #driverActions(add: (name: string, act: () => void) => void): void {
    const image = this.#image;
    switch (this.#phase) {
      case 'idle':
        add('track', () => {
          image.track(false);
          this.#beginGrace();
          this.#phase = 'starting';
        });
        return;
      case 'starting':
        if (!this.#graceOver) return;
        add('mark data', () => {
          for (let at = 0; at >= 0; ) at = image.markData(at, 2);
          image.sendSize(true);
          this.#phase = 'tracked';
        });
        return;
      case 'tracked':
        this.#copyAction(add);
        this.#disturb(add);
        if (this.#wire.open)
          add('route', () => {
            image.route();
            this.#beginGrace();
            this.#phase = 'routing';
          });
        return;
      case 'routing':
        this.#copyAction(add);
        this.#disturb(add);
        if (this.#graceOver && this.#wire.open)
          add('mirror', () => {
            image.mirror();
            this.#phase = 'mirror';
          });
        return;
      case 'mirror':
        this.#copyAction(add);
        this.#disturb(add);
        if (image.clean && (this.#quiet || this.#random.chance(0.1)))
          add('fence', () => {
            image.sendSize(true);
            image.fence();
            this.#beginGrace();
            this.#phase = 'fencing';
          });
        return;
      case 'fencing':
        if (
          this.#graceOver &&
          this.#wire.inFlight === 0 &&
          this.#routed.length === 0 &&
          !image.sender.waits()
        )
          add('offer', () => {
            assert(image.clean, 'dirty at the offer');
            this.#offered = Uint8Array.from(this.#source.content);
            if (this.#broken === 'refuse-while-offered') image.seal();
            if (this.#broken === 'perform-while-offered') image.idle();
            this.#phase = 'offered';
          });
        return;
      case 'offered':
        add('the target takes it', () => {
          image.seal();
          this.#phase = 'taken';
        });
        add('the target gave up', () => {
          this.#assertAsOffered();
          image.idle();
          this.#phase = 'given back';
        });
        return;
      case 'taken':
      case 'given back':
        return;
      default:
        this.#phase satisfies never;
    }
  }

  #copyAction(add: (name: string, act: () => void) => void): void {
    if (this.#copies >= COPIES_MAX || !this.#wire.open) return;
    const run = nextRun(this.#image.bitmap, this.#cursor, EXTENT_BYTES);
    if (!run) {
      this.#cursor = 0;
      if (!nextRun(this.#image.bitmap, 0, EXTENT_BYTES)) return;
    }
    add('copy', () => {
      const next = nextRun(this.#image.bitmap, this.#cursor, EXTENT_BYTES);
      this.#cursor = next?.to ?? 0;
      if (!next) return;
      this.#image.sendSize(false);
      this.#copies++;
      this.#image.copier.copy(next).then(
        () => this.#copies--,
        (error: unknown) => {
          this.#failure = error;
        },
      );
    });
  }

  /** What operators and networks do: limits, pauses, lost connections. */
  #disturb(add: (name: string, act: () => void) => void): void {
    const goBack = (): void => {
      this.#image.unroute(this.#limited);
      this.#phase = 'tracked';
    };
    if (this.#quiet) {
      if (!this.#wire.open) add('reconnect', () => this.#reconnect());
      return;
    }
    if (this.#random.chance(0.05))
      add('lose', () => {
        goBack();
        this.#wire.lose();
      });
    if (!this.#wire.open) add('reconnect', () => this.#reconnect());
    if (this.#random.chance(0.05)) add('pause', goBack);
    if (this.#phase === 'tracked' && this.#random.chance(0.1))
      add('disk limit', () => {
        this.#limited = !this.#limited;
        this.#image.unroute(this.#limited);
      });
  }

  #reconnect(): void {
    this.#wire.open = true;
  }

  #beginGrace(): void {
    this.#graceOver = this.#broken === 'no-grace';
    void this.#grace
      .elapsed([SLOT], () => new Promise((resolve) => setImmediate(resolve)))
      .then(() => {
        this.#graceOver = true;
      });
  }

  #write(writer: Writer): void {
    const { offset, data, punch } = this.#operation(writer);
    writer.inside = true;
    const mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    const result = punch
      ? writer.io.fallocate(SLOT, writer.id, mode, offset, data.length)
      : writer.io.write(SLOT, writer.id, data, data.length, offset);
    writer.inside = false;
    const answered = (answer: number): void => {
      writer.waiting = false;
      if (answer < 0) this.#refused++;
      if (answer < 0) return;
      if (punch) this.#acked.punch(offset, data.length);
      else this.#acked.write(data, offset);
    };
    if (result !== ROUTED) {
      answered(result);
      return;
    }
    writer.waiting = true;
    const common = { slot: SLOT, fd: writer.id, reply: { kind: 'port', id: 0 } } as const;
    const request: RoutedRequest = punch
      ? { ...common, op: 'fallocate', mode, offset, length: data.length }
      : { ...common, op: 'write', offset, payload: data };
    this.#routed.push({ request, reply: answered });
  }

  #operation(writer: Writer): Operation {
    const start = Math.min(writer.id, 3) * RANGE;
    const length = 1 + this.#random.below(this.#random.chance(0.5) ? 700 : RANGE);
    const offset = start + this.#random.below(RANGE - length + 1);
    const value = this.#random.chance(0.1) ? 0 : 1 + this.#random.below(255);
    return { offset, data: new Uint8Array(length).fill(value), punch: this.#random.chance(0.2) };
  }

  /** The kernel holds the inode's lock exclusively: no write is under way meanwhile. */
  #truncate(writer: Writer): void {
    const size = this.#random.below(CAPACITY);
    this.#truncating = true;
    writer.inside = true;
    const result = writer.io.truncate(SLOT, writer.id, size);
    writer.inside = false;
    const answered = (answer: number): void => {
      this.#truncating = false;
      writer.waiting = false;
      if (answer >= 0) this.#acked.resize(size);
      else this.#refused++;
    };
    if (result !== ROUTED) {
      answered(result);
      return;
    }
    writer.waiting = true;
    const reply = { kind: 'port', id: 0 } as const;
    this.#routed.push({
      request: { slot: SLOT, fd: writer.id, reply, op: 'truncate', size },
      reply: answered,
    });
  }

  #handleRouted(): void {
    const { request, reply } = this.#routed.shift()!;
    this.#image.writer.handle(request, reply);
  }
}
