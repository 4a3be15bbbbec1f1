/**
 * What passes between the threads that serve file-system requests (*participants*: the data workers, the owner of
 * the namespace, or the fuse-native loop) and the replica thread.
 */
import type { MessagePort } from 'node:worker_threads';
import type { Bytes } from '../leaves/units.js';
import type { ImageSlot } from './image-table.js';
import type { LaneAnnouncement } from './mirror-lane.js';

/** How the replica thread answers a routed request. */
export type ReplyToken =
  /** Write a fuse_out_header to this /dev/fuse descriptor. */
  | {
      readonly kind: 'kernel';
      readonly fuseFd: number;
      readonly unique: bigint;
      /** Thread that made the request. */
      readonly caller: number;
    }
  /** Post a `RoutedResult` back through the port it came from (and wake the participant). */
  | { readonly kind: 'port'; readonly id: number };

interface Routed {
  readonly slot: ImageSlot;
  /** Backing descriptor, of the handle as a rule; stays open until the reply. */
  readonly fd: number;
  readonly reply: ReplyToken;
  /** For the replica thread: the change is being made, or has been. */
  begun?: boolean;
  /** For the replica thread: answered with EINTR, so the change must not be made any more. */
  interrupted?: boolean;
  /** For the replica thread: a limit holds the answer back; this gives it as soon as the change is made. */
  unhold?: () => void;
}

/** A change to a routed image, handed over with everything needed to perform it. */
export type RoutedRequest =
  | (Routed & {
      readonly op: 'write';
      readonly offset: number;
      /** For the replica thread: let go of once both sides have it. */
      payload: Uint8Array;
      /** To be durable, on both sides while mirrored, before it is answered: its data, or all of the file. */
      readonly sync?: 'data' | 'all';
      /** See `BackingCalls`. */
      readonly whole?: boolean;
      /** `fd` is of this request alone: whoever answers closes it. */
      readonly ownFd?: boolean;
    })
  | (Routed & {
      readonly op: 'fallocate';
      readonly mode: number;
      readonly offset: number;
      readonly length: number;
    })
  | (Routed & { readonly op: 'truncate'; readonly size: number })
  | (Routed & { readonly op: 'fsync'; readonly datasync: boolean });

/** `result`: bytes written or 0; negative: -errno. */
export interface RoutedResult {
  readonly type: 'result';
  readonly id: number;
  readonly result: number;
}

/** The bitmap that writers of `slot` must mark from `epoch` on; posted before the table's epoch and mode are set. */
export interface BitmapAnnouncement {
  readonly type: 'bitmap';
  readonly slot: ImageSlot;
  readonly epoch: number;
  readonly bitmap: SharedArrayBuffer | null;
  /** `WrittenBlocks` beside it. */
  readonly written: SharedArrayBuffer | null;
  readonly blockSize: Bytes;
  /** Over which writes of mode `mirrored` are sent; absent: that mode is not set. */
  readonly lane?: LaneAnnouncement;
}

export type ToParticipant = RoutedResult | BitmapAnnouncement;

/** The replica thread's end of one participant. */
export interface ParticipantEnd {
  /** Receives `RoutedRequest`, takes `ToParticipant`. */
  readonly port: MessagePort;
  /** One Int32 that is incremented and notified after each post, where the participant looks at it. */
  readonly wake: SharedArrayBuffer | null;
}

/** What the replica thread needs of a mounted file system; all of it can be posted to a worker. */
export interface FileSystemEnds {
  readonly images: SharedArrayBuffer;
  readonly grace: SharedArrayBuffer;
  readonly participants: readonly ParticipantEnd[];
  /** The threads that get writes can serve images of mode `mirrored`. */
  readonly mirrors: boolean;
  /** Calls `ImageStore` methods. */
  readonly store: ParticipantEnd;
}
