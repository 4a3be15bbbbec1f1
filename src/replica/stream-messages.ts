/** What passes between the replica thread and the threads of streams. */
import type { MessagePort } from 'node:worker_threads';
import type { ImageSlot } from '../fs/image-table.js';
import type { PlainError } from '../leaves/errors.js';
import type { Bytes } from '../leaves/units.js';
import { millis } from '../leaves/units.js';

/** A stream whose peer takes nothing for so long is broken: no pings are sent over it, and a copy has nobody who waits. */
export const STREAM_SILENCE_MAX = millis(30_000);

/** Socket of a stream, and what seals it; null: nothing does. */
export interface StreamEnd {
  readonly fd: number;
  readonly sendKey: Uint8Array | null;
  readonly receiveKey: Uint8Array | null;
}

export interface SourceStreamSetup extends StreamEnd {
  /** eventfd(2) that is written to after something was posted. */
  readonly wakeFd: number;
  readonly lane: SharedArrayBuffer;
  readonly port: MessagePort;
}

/** Runs of blocks to be read and sent. */
export interface CopyCommand {
  readonly id: number;
  readonly image: number;
  /** Backing descriptor; stays open until all runs are reported as sent. */
  readonly fd: number;
  /** Offset and length of each run, one run after the other. */
  readonly runs: Float64Array;
  /** Zeroes are looked for in pieces of this size. */
  readonly piece: number;
}

/** A change that has no payload. */
export interface PlainCommand {
  readonly id: number;
  readonly kind: 'resize';
  readonly image: number;
  readonly size: number;
}

/** Buffers of the `DirtyBitmap` and the `WrittenBlocks` of one image. */
export interface LaneMarks {
  readonly slot: ImageSlot;
  readonly bitmap: SharedArrayBuffer;
  readonly written: SharedArrayBuffer;
  readonly blockSize: Bytes;
}

/** In place of a descriptor of the kernel's: the write is answered where it came from, by its number. */
export const BY_NUMBER = -1;

/** A write that came to the replica thread although a lane has its image. */
export interface LaneWrite {
  readonly id: number;
  readonly slot: ImageSlot;
  readonly image: number;
  /** Stays open until it is `written`. */
  readonly fd: number;
  readonly offset: number;
  readonly payload: Uint8Array;
  /** See `BackingCalls`. */
  readonly whole: boolean;
}

export type ToSourceStream =
  | { readonly type: 'send'; readonly commands: readonly (CopyCommand | PlainCommand)[] }
  /** Where writes of the lane are marked that are lost. */
  | { readonly type: 'marks'; readonly images: readonly LaneMarks[] }
  /** To go over the lane, as a participant's would; the payload is a copy. */
  | ({ readonly type: 'write' } & LaneWrite)
  /** Wants `drained` once nothing of the lane is under way. Only while nobody begins anything. */
  | { readonly type: 'drain'; readonly id: number };

/** Of the next runs of a command, in their order. */
export interface SentRuns {
  /** How many. */
  readonly runs: number;
  /** Payload. */
  readonly bytes: number;
  /** Of their last record. */
  readonly sequence: number;
}

/** Runs were sent, or the image could not be read: then no more comes of the command. */
export type SentReport = { readonly id: number } & (
  | { readonly sent: SentRuns }
  | { readonly error: PlainError }
);

export type FromSourceStream =
  | { readonly type: 'ready' }
  | { readonly type: 'sent'; readonly reports: readonly SentReport[] }
  | { readonly type: 'acked'; readonly sequence: number }
  | { readonly type: 'drained'; readonly id: number }
  /** `result`: as pwrite(2) gave it, or -errno; on both sides, or marked. */
  | { readonly type: 'written'; readonly id: number; readonly result: number }
  /** Nothing is sent or read any more; what is not acknowledged is lost, and marked if it is the lane's. */
  | { readonly type: 'closed'; readonly reason: string };

export interface TargetStreamSetup extends StreamEnd {
  /** Backing descriptors of the images, by number. */
  readonly images: readonly { readonly fd: number; readonly name: string }[];
  /** `StreamCounters`. */
  readonly counters: SharedArrayBuffer;
  /** `StreamReplies`. */
  readonly replies: SharedArrayBuffer;
  /** `WantedFlushes`. */
  readonly flushes: SharedArrayBuffer;
}

/** From the thread that flushes: a flush failed, and it has shut the stream down. */
export interface FromFlushThread {
  readonly type: 'failed';
  readonly error: PlainError;
}

export type FromTargetStream =
  | { readonly type: 'ready' }
  | { readonly type: 'size'; readonly image: number; readonly size: number }
  /** A change did not take effect: nothing behind it is applied. */
  | { readonly type: 'failed'; readonly error: PlainError }
  | { readonly type: 'closed'; readonly reason: string; readonly rejected: boolean };
