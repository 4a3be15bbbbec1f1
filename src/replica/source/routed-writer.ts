import { fdatasync, fsync } from 'node:fs';
import type { BackingCalls } from '../../fs/backing-calls.js';
import type { DirtyBitmap } from '../../fs/dirty-bitmap.js';
import { Errno } from '../../fs/errno.js';
import { FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE } from '../../fs/libc.js';
import type { RoutedRequest } from '../../fs/participant.js';
import { AbortHandle } from '../../leaves/abort-handle.js';
import type { Extent } from '../../leaves/units.js';
import type { ExtentLock, ExtentLocks } from '../extent-locks.js';
import { TO_THE_END } from '../extent-locks.js';
import type { MirrorSender, TakeTokens } from './mirror-sender.js';
import type { Change, Outcome, Settled, TransferCounters, WirePort } from './ports.js';

/**
 * What is done with a routed change. `plain`: performed. `track`: performed, then marked dirty. `mirror`: performed on
 * both sides unless its blocks are all dirty, and answered when both have it. `lane`: a write goes over the lane that has
 * the image, anything else is held. `hold`: kept until the next policy, which
 * then goes for it. `refuse`: -EROFS.
 */
export type RoutedPolicy = 'plain' | 'track' | 'mirror' | 'lane' | 'hold' | 'refuse';

export interface RoutedWriterOptions {
  /** Number of the image within its group. */
  readonly image: number;
  readonly calls: BackingCalls;
  readonly bitmap: DirtyBitmap;
  readonly locks: ExtentLocks;
  readonly wire: WirePort;
  readonly counters: TransferCounters;
  readonly takeDisk: TakeTokens;
  readonly sender: MirrorSender;
  /** Whether a guest's fsync has to reach the target too: once in sync. */
  readonly syncBothSides: () => boolean;
  /** Flushes a descriptor off this thread; gives 0 or -errno. Injected by the model. */
  readonly flush?: (fd: number, datasync: boolean) => Promise<number>;
  /** A block became dirty although changes are being mirrored: the image is not in sync any more. */
  readonly onDirtied: () => void;
  /** A guest's write was made; not above 0: it failed. */
  readonly onWritten: (offset: number, length: number) => void;
  /** With the policy `lane`. False: it does not take the write, which is held. */
  readonly laneWrite?: (write: WriteRequest, reply: Reply) => boolean;
  /** With the policy `lane`: a change is held until the next policy. */
  readonly onHeld?: () => void;
}

const NOTHING = new Uint8Array(0);

type ChangeRequest = Exclude<RoutedRequest, { op: 'fsync' }>;
export type WriteRequest = Extract<RoutedRequest, { op: 'write' }>;
type Reply = (result: number) => void;

/**
 * Performs the changes to one routed image. What changes both sides is performed here and sent within one turn of the
 * event loop, so that both sides see overlapping changes in one order and only what succeeded is replayed; a write that
 * has to wait for the network is sent later (`MirrorSender`).
 */
export class RoutedWriter {
  readonly #options: RoutedWriterOptions;
  #policy: RoutedPolicy = 'track';
  /** The answers that the disk limit holds back: as many as the kernel has under way for the image. */
  readonly #heldAnswers = new Set<AbortHandle>();
  /** As many as the kernel has under way for the image. */
  readonly #held: (() => void)[] = [];

  constructor(options: RoutedWriterOptions) {
    this.#options = options;
  }

  get policy(): RoutedPolicy {
    return this.#policy;
  }

  /** Requests that were waiting for tokens which the new policy does not ask for go on at once. */
  set policy(next: RoutedPolicy) {
    this.#policy = next;
    if (next === 'plain' || next === 'refuse') for (const held of this.#heldAnswers) held.abort();
    // What is sent behind the fence is what the offer waits for.
    if (next === 'hold') this.#options.sender.hurry();
    else if (next !== 'mirror' && next !== 'lane') this.#options.sender.giveUp();
    if (next !== 'hold') for (const run of this.#held.splice(0)) run();
  }

  /** `reply` is called exactly once with what the system call would return, or -errno. */
  handle(request: RoutedRequest, reply: Reply): void {
    if (request.op === 'fsync') {
      this.#fsync(request.fd, request.datasync, reply);
      return;
    }
    const amount = request.op === 'write' ? request.payload.length : 0;
    this.#run(request, this.#limited(request, amount, reply));
  }

  /**
   * The disk limit holds answers back, not changes: a guest has no more under way than its queue, so it comes to the same
   * rate, and what waits takes no memory and can be let go at any time.
   */
  #limited(request: ChangeRequest, amount: number, reply: Reply): Reply {
    const limited = this.#policy === 'track' || this.#policy === 'mirror';
    if (request.op !== 'write' || amount === 0 || !limited) return reply;
    const hold = new AbortHandle();
    const granted = this.#options.takeDisk(amount, hold);
    if (!granted) return reply;
    this.#heldAnswers.add(hold);
    request.unhold = () => hold.abort();
    const free = (): void => void this.#heldAnswers.delete(hold);
    const held = granted.then(free, free);
    return (result) => {
      request.payload = NOTHING;
      void held.then(() => reply(result));
    };
  }

  #run(request: ChangeRequest, reply: Reply): void {
    if (request.interrupted) return;
    switch (this.#policy) {
      case 'refuse':
        reply(-Errno.EROFS);
        return;
      case 'hold':
        this.#held.push(() => this.#run(request, reply));
        return;
      case 'lane':
        if (request.op === 'write' && this.#options.laneWrite?.(request, reply)) return;
        this.#held.push(() => this.#run(request, reply));
        this.#options.onHeld?.();
        return;
      case 'plain':
        reply(this.#perform(request));
        return;
      case 'track': {
        const extent = this.#extentOf(request);
        const result = this.#perform(request);
        this.#options.bitmap.mark(extent.offset, this.#changed(request, result, extent));
        reply(result);
        return;
      }
      case 'mirror':
        this.#lock(request, reply);
        return;
      default:
        this.#policy satisfies never;
    }
  }

  #lock(request: ChangeRequest, reply: Reply): void {
    const { locks } = this.#options;
    const extent = this.#extentOf(request);
    const length = request.op === 'truncate' ? TO_THE_END - extent.offset : Math.max(extent.length, 1);
    const asked = locks.acquire(extent.offset, length, 'exclusive');
    const go = (lock: ExtentLock): void => {
      try {
        // The policy may have changed while it waited.
        if (this.#policy === 'mirror') this.#mirror(request, reply);
        else this.#run(request, reply);
      } finally {
        locks.release(lock);
      }
    };
    if (asked instanceof Promise) void asked.then(go);
    else go(asked);
  }

  #mirror(request: ChangeRequest, reply: Reply): void {
    if (request.interrupted) return;
    const { bitmap, wire, calls } = this.#options;
    const extent = this.#extentOf(request);
    const allDirty = extent.length > 0 && bitmap.allDirty(extent.offset, extent.length);
    const sizeBefore = request.op === 'fallocate' ? calls.fileSize(request.fd) : 0;
    const result = this.#perform(request);
    if (allDirty && request.op !== 'truncate') {
      reply(result);
      return;
    }
    if (result < 0) {
      // It may have changed some bytes before it failed.
      bitmap.mark(extent.offset, this.#changed(request, result, extent));
      this.#options.onDirtied();
      reply(result);
      return;
    }
    const changes = this.#changesOf(request, result, sizeBefore);
    if (changes.length === 0) {
      reply(result);
      return;
    }
    let unsettled = changes.length;
    let answered = false;
    const answer = (): void => {
      if (!answered) reply(result);
      answered = true;
    };
    const settled = (outcome: Outcome): void => {
      if (outcome === 'lost') {
        bitmap.mark(extent.offset, extent.length);
        this.#options.onDirtied();
      }
      if (--unsettled === 0) answer();
    };
    for (const change of changes) {
      if (change.kind === 'data') this.#send(request, change, settled, answer);
      else wire.send(change, settled);
    }
  }

  /** A write that has to wait is sent also when nobody waits for its answer any more: the image stays in sync. */
  #send(
    request: ChangeRequest,
    { offset, payload }: Change & { kind: 'data' },
    settled: Settled,
    answer: () => void,
  ): void {
    const waits = this.#options.sender.send(offset, payload, settled);
    if (!waits || request.op !== 'write') return;
    request.payload = NOTHING;
    const { unhold } = request;
    request.unhold = () => {
      unhold?.();
      answer();
    };
  }

  /** What the target must do to have the same bytes and size. */
  #changesOf(request: ChangeRequest, result: number, sizeBefore: number): Change[] {
    const { image, calls } = this.#options;
    switch (request.op) {
      case 'write': {
        if (result === 0) return [];
        const payload = request.payload.subarray(0, result);
        return [{ kind: 'data', image, offset: request.offset, payload, mirror: true }];
      }
      case 'truncate':
        return [{ kind: 'resize', image, size: request.size, mirror: true }];
      case 'fallocate': {
        const { mode, offset, length } = request;
        if ((mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) === 0)
          return [{ kind: 'allocate', image, mode: mode & FALLOC_FL_KEEP_SIZE, offset, length }];
        // Zeroing is replayed as a hole: not every file system below the target can zero a range.
        const hole: Change = { kind: 'hole', image, offset, length, mirror: true };
        const size = calls.fileSize(request.fd);
        return size === sizeBefore ? [hole] : [hole, { kind: 'resize', image, size, mirror: true }];
      }
      default:
        return request satisfies never;
    }
  }

  #perform(request: ChangeRequest): number {
    request.begun = true;
    const { calls } = this.#options;
    switch (request.op) {
      case 'write':
        return this.#write(request);
      case 'truncate':
        return calls.ftruncate(request.fd, request.size);
      case 'fallocate':
        return calls.fallocate(request.fd, request.mode, request.offset, request.length);
      default:
        return request satisfies never;
    }
  }

  #write({ fd, payload, offset, whole }: Extract<ChangeRequest, { op: 'write' }>): number {
    const written = this.#options.calls.pwrite(fd, payload, payload.length, offset, whole);
    this.#options.onWritten(offset, written);
    return written;
  }

  /** Bytes of the extent that may have changed; of a change that failed, none past the end of the file. */
  #changed(request: ChangeRequest, result: number, { offset, length }: Extent): number {
    if (result >= 0) return length;
    if (request.op === 'truncate') return 0;
    return Math.min(length, this.#options.calls.fileSize(request.fd) - offset);
  }

  /** The bytes a change touches; of a truncate, what is gained or lost. Looked at before it is made. */
  #extentOf(request: ChangeRequest): Extent {
    switch (request.op) {
      case 'write':
        return { offset: request.offset, length: request.payload.length } as Extent;
      case 'truncate': {
        const size = this.#options.calls.fileSize(request.fd);
        const offset = Math.min(size, request.size);
        return { offset, length: Math.max(size, request.size) - offset } as Extent;
      }
      case 'fallocate':
        return { offset: request.offset, length: request.length } as Extent;
      default:
        return request satisfies never;
    }
  }

  #fsync(fd: number, datasync: boolean, reply: Reply): void {
    const { image, wire, flush = flushOffThread, syncBothSides } = this.#options;
    const mirrored = this.#policy === 'mirror' || this.#policy === 'lane';
    const both = mirrored && syncBothSides() && wire.open;
    let unsettled = both ? 2 : 1;
    let result = 0;
    const done = (): void => {
      if (--unsettled === 0) reply(result);
    };
    // Lost: the source goes on alone, so what counts is that the source has it.
    if (both) wire.send({ kind: 'sync', image }, done);
    void flush(fd, datasync).then((value) => {
      result = value;
      done();
    });
  }
}

const flushOffThread = (fd: number, datasync: boolean): Promise<number> =>
  new Promise((resolve) => {
    const done = (error: NodeJS.ErrnoException | null): void =>
      resolve(error ? (error.errno ?? -Errno.EIO) : 0);
    if (datasync) fdatasync(fd, done);
    else fsync(fd, done);
  });
