/** What the main thread gives the threads of the kernel transport, and what they tell it. */
import type { MessagePort } from 'node:worker_threads';
import type { ImageSlot } from '../image-table.js';
import type { BitmapAnnouncement } from '../participant.js';

interface Setup {
  readonly participant: number;
  /** This participant's end; the other one belongs to the replica thread. */
  readonly port: MessagePort;
  readonly images: SharedArrayBuffer;
  readonly grace: SharedArrayBuffer;
  readonly handles: SharedArrayBuffer;
  /** One Int32 on which the owner sleeps. */
  readonly ownerWake: SharedArrayBuffer;
  readonly stop: SharedArrayBuffer;
}

/** A thread that performs data requests. */
export interface LaneSetup extends Setup {
  /** Which calls are under way: `ActivityTable`. */
  readonly activity: SharedArrayBuffer;
  /** One Int32 that changes after each message to `port`. */
  readonly posted: SharedArrayBuffer;
  /** What was announced before the thread began. */
  readonly announced: readonly BitmapAnnouncement[];
}

export interface DataWorkerSetup extends LaneSetup {
  readonly fuseFd: number;
  readonly ring: SharedArrayBuffer;
}

export interface OwnerSetup extends Setup {
  readonly rootFd: number;
  /** Carries notifications to the kernel. */
  readonly notifyFd: number;
  /** One a data worker, in the order of `fuseFds`. */
  readonly rings: readonly SharedArrayBuffer[];
  readonly fuseFds: readonly number[];
  readonly storePort: MessagePort;
  readonly passthrough: boolean;
  readonly mapsDirect: boolean;
  /** See `Namespace`. */
  readonly descriptorsMax: number;
}

/** A data request for another thread to perform, with its payload. */
export interface HandedOver {
  readonly slot: ImageSlot;
  readonly fuseFd: number;
  /** The whole request; the payload of a WRITE is page aligned. */
  readonly request: Uint8Array;
}

export type FromThread =
  | { readonly type: 'ready' }
  /** Notifications for the kernel, to be written where that may take its time. */
  | { readonly type: 'notify'; readonly messages: readonly Uint8Array[] }
  | ({ readonly type: 'hand-over' } & HandedOver)
  /** The kernel's FUSE_INTERRUPT of the request. */
  | { readonly type: 'interrupt'; readonly unique: bigint }
  /** A lane has answered what it was given. */
  | { readonly type: 'served' }
  /** It has been replaced, is back from its call, and ends; its port, which comes with this, is for the next one. */
  | { readonly type: 'replaced'; readonly port: MessagePort }
  | {
      readonly type: 'log';
      readonly level: 'debug' | 'info' | 'warn' | 'error';
      readonly message: string;
      readonly fields?: object;
    };

/**
 * Data workers add this to the owner's wake word and others add 1, so that the low half tells the owner whether to
 * look at its ports.
 */
export const OWNER_WAKE_REQUEST = 0x10000;
export const OWNER_WAKE_PORTS_MASK = 0xffff;

/** Raised once, by the main thread, when every data worker has ended. */
export class StopFlag {
  readonly buffer: SharedArrayBuffer;
  readonly #word: Int32Array;

  constructor(buffer = new SharedArrayBuffer(4)) {
    this.buffer = buffer;
    this.#word = new Int32Array(buffer);
  }
  get raised(): boolean {
    return Atomics.load(this.#word, 0) !== 0;
  }
  raise(): void {
    Atomics.store(this.#word, 0, 1);
  }
}
