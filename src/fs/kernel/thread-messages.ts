/** What the main thread gives the threads of the kernel transport, and what they tell it. */
import type { MessagePort } from 'node:worker_threads';

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

export interface DataWorkerSetup extends Setup {
  readonly fuseFd: number;
  readonly ring: SharedArrayBuffer;
  /** One Int32 that changes after each message to `port`. */
  readonly posted: SharedArrayBuffer;
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
}

export type FromThread =
  | { readonly type: 'ready' }
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
