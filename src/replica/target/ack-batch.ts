import type { MigrateFsError } from '../../leaves/errors.js';
import { failureFor } from '../wire/failure.js';
import type { FrameProperties } from '../wire/frame.js';

/** At most 8 bytes each: an ack header stays far below its limit. */
const ACK_SEQS_MAX = 4096;

/** Collects what took effect and acknowledges it once, as soon as the frames that have arrived are through. */
export class AckBatch {
  readonly #send: (frame: FrameProperties) => void;
  #seqs: number[] = [];
  #scheduled = false;

  constructor(send: (frame: FrameProperties) => void) {
    this.#send = send;
  }

  add(seq: number): void {
    if (seq === 0) return;
    this.#seqs.push(seq);
    if (this.#seqs.length >= ACK_SEQS_MAX) this.flush();
    if (this.#scheduled) return;
    this.#scheduled = true;
    // Runs after all frames of the chunk being read and before the next input: no frame waits for a later one.
    process.nextTick(() => {
      this.#scheduled = false;
      this.flush();
    });
  }

  /** The frame did not take effect. */
  fail(seq: number, failure: MigrateFsError): void {
    this.flush();
    this.#send({ ack: { seqs: seq === 0 ? [] : [seq], failure: failureFor(failure) } });
  }

  flush(): void {
    if (this.#seqs.length === 0) return;
    this.#send({ ack: { seqs: this.#seqs } });
    this.#seqs = [];
  }
}
