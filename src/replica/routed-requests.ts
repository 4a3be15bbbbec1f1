import { Errno } from '../fs/errno.js';
import type { BackingCalls } from '../fs/image-io.js';
import type { ImageSlot, ImageTable } from '../fs/image-table.js';
import { ImageMode } from '../fs/image-table.js';
import { replyToKernel } from '../fs/kernel/reply.js';
import { close } from '../fs/libc.js';
import type { ParticipantEnd, RoutedRequest, RoutedResult } from '../fs/participant.js';
import { performRouted } from './target/perform-routed.js';

export type Reply = (result: number) => void;
/** Whoever is in charge of the image in a slot; undefined: nobody (any more). */
export type FindHandler = (slot: ImageSlot) => ((request: RoutedRequest, reply: Reply) => void) | undefined;

/** After something was posted to a thread that sleeps on shared memory. */
export const wakeParticipant = ({ wake }: ParticipantEnd): void => {
  if (!wake) return;
  const word = new Int32Array(wake);
  Atomics.add(word, 0, 1);
  Atomics.notify(word, 0);
};

/** Receives the changes of routed images from every participant and sees to it that each is answered once. */
export class RoutedRequests {
  readonly #participants: readonly ParticipantEnd[];
  readonly #table: ImageTable;
  readonly #calls: BackingCalls;
  readonly #find: FindHandler;

  constructor(
    participants: readonly ParticipantEnd[],
    table: ImageTable,
    calls: BackingCalls,
    find: FindHandler,
  ) {
    this.#participants = participants;
    this.#table = table;
    this.#calls = calls;
    this.#find = find;
    for (const participant of participants)
      participant.port.on('message', (request: RoutedRequest) => this.#dispatch(participant, request));
  }

  close(): void {
    for (const { port } of this.#participants) port.close();
  }

  #dispatch(participant: ParticipantEnd, request: RoutedRequest): void {
    const reply = (result: number): void => answer(participant, request, result);
    const handle = this.#find(request.slot);
    if (handle) handle(request, reply);
    // Handed over just before the image left the mode `routed`.
    else if (this.#table.mode(request.slot) === ImageMode.fenced && request.op !== 'fsync')
      reply(-Errno.EROFS);
    else reply(performRouted(this.#calls, request));
  }
}

const answer = (participant: ParticipantEnd, request: RoutedRequest, result: number): void => {
  const { reply } = request;
  if (request.op === 'write' && request.ownFd) close(request.fd);
  switch (reply.kind) {
    case 'kernel':
      replyToKernel(reply.fuseFd, reply.unique, result, request.op === 'write');
      return;
    case 'port':
      participant.port.postMessage({ type: 'result', id: reply.id, result } satisfies RoutedResult);
      wakeParticipant(participant);
      return;
    default:
      reply satisfies never;
  }
};
