import assert from 'node:assert/strict';
import type { MessagePort } from 'node:worker_threads';
import { MessageChannel, receiveMessageOnPort } from 'node:worker_threads';
import type { ImageSlot } from '../image-table.js';
import type { BitmapAnnouncement, ParticipantEnd, ToParticipant } from '../participant.js';

/** A participant's number and its end of the port to the replica thread: what a thread needs to serve images. */
export interface Seat {
  readonly participant: number;
  readonly port: MessagePort;
  readonly posted: SharedArrayBuffer;
}

/**
 * The participants of a mount. The replica thread knows all of them from the start; threads come and go, and take a
 * free seat each. What was announced before is kept for threads that come later.
 */
export class Seats {
  /** The replica thread's ends. The first is nobody's: it sees every announcement before the others do. */
  readonly ends: readonly ParticipantEnd[];
  readonly #observer: MessagePort;
  readonly #announced = new Map<ImageSlot, BitmapAnnouncement>();
  readonly #free: Seat[] = [];
  readonly #posted: readonly SharedArrayBuffer[];

  /** Numbers from 0 to `count` - 1. */
  constructor(count: number) {
    const observer = new MessageChannel();
    this.#observer = observer.port2;
    const ends: ParticipantEnd[] = [{ port: observer.port1, wake: null }];
    this.#posted = Array.from({ length: count }, () => new SharedArrayBuffer(4));
    for (const [participant, posted] of this.#posted.entries()) {
      const { port1, port2 } = new MessageChannel();
      ends.push({ port: port1, wake: posted });
      this.#free.push({ participant, port: port2, posted });
    }
    this.#free.reverse();
    this.ends = ends;
  }

  get free(): number {
    return this.#free.length;
  }

  /** With what was announced until now. Undefined: all are taken. */
  take(): { readonly seat: Seat; readonly announced: readonly BitmapAnnouncement[] } | undefined {
    this.drain();
    const seat = this.#free.pop();
    return seat && { seat, announced: [...this.#announced.values()] };
  }

  giveBack(participant: number, port: MessagePort): void {
    assert(
      !this.#free.some((seat) => seat.participant === participant),
      `seat ${participant} is free already`,
    );
    this.#free.push({ participant, port, posted: this.#posted[participant]! });
  }

  /** Takes announcements in; called now and then, because they hold memory. */
  drain(): void {
    // First, so that whatever is dropped here is at the observer's already.
    for (const { port } of this.#free) while (receiveMessageOnPort(port));
    for (let got = receiveMessageOnPort(this.#observer); got; got = receiveMessageOnPort(this.#observer)) {
      const message = got.message as ToParticipant;
      if (message.type !== 'bitmap') continue;
      if (message.bitmap === null) this.#announced.delete(message.slot);
      else this.#announced.set(message.slot, message);
    }
  }

  close(): void {
    this.#observer.close();
    for (const { port } of this.#free) port.close();
  }
}
