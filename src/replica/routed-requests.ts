import type { BackingCalls } from '../fs/backing-calls.js';
import { Errno } from '../fs/errno.js';
import type { ImageSlot, ImageTable } from '../fs/image-table.js';
import { ImageMode } from '../fs/image-table.js';
import { Callers, isBeingKilled } from '../fs/kernel/caller.js';
import { replyToKernel } from '../fs/kernel/reply.js';
import { close } from '../fs/libc.js';
import type { ParticipantEnd, RoutedRequest, RoutedResult } from '../fs/participant.js';
import type { Clock } from '../leaves/clock.js';
import type { Millis } from '../leaves/units.js';
import { millis } from '../leaves/units.js';
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

const closeOwn = (request: RoutedRequest): void => {
  if (request.op === 'write' && request.ownFd) close(request.fd);
};

/** A signal that kills may follow one that did not, and nobody tells of it. */
const INTERRUPT_LOOK = millis(250);
/** An interrupt may overtake the request that it is about, on its way from thread to thread. */
const INTERRUPT_UNKNOWN_MAX = millis(2_000);
const INTERRUPTS_MAX = 4096;
/** Nobody tells when a process ends that has asynchronous requests under way; the kernel makes it wait for them. */
const CALLER_LOOK = millis(1_000);
/** Callers looked at in one go. */
const CALLERS_MAX = 256;

/** Receives the changes of routed images from every participant and sees to it that each is answered once. */
export class RoutedRequests {
  readonly #participants: readonly ParticipantEnd[];
  readonly #table: ImageTable;
  readonly #calls: BackingCalls;
  readonly #find: FindHandler;
  readonly #clock: Clock;
  /** What the kernel waits for, by its number. */
  readonly #unanswered = new Map<bigint, RoutedRequest>();
  readonly #interrupts = new Map<bigint, Millis>();
  readonly #callers = new Callers();
  #forgetLook: (() => void) | undefined;
  #forgetCallerLook: (() => void) | undefined;

  constructor(
    participants: readonly ParticipantEnd[],
    table: ImageTable,
    calls: BackingCalls,
    find: FindHandler,
    clock: Clock,
  ) {
    this.#participants = participants;
    this.#table = table;
    this.#calls = calls;
    this.#find = find;
    this.#clock = clock;
    for (const participant of participants)
      participant.port.on('message', (request: RoutedRequest) => this.#dispatch(participant, request));
  }

  close(): void {
    this.#forgetLook?.();
    this.#forgetCallerLook?.();
    for (const { port } of this.#participants) port.close();
  }

  /**
   * The caller of the request with this number got a signal. If that kills it, and nothing of the change has been made,
   * it ends with EINTR; a change that is made is answered without regard to a limit. Other signals wait: limits and cutovers hold writes up as a matter of routine, and no program
   * expects EINTR of a disk.
   */
  interrupt(unique: bigint): void {
    if (this.#interrupts.size >= INTERRUPTS_MAX)
      this.#interrupts.delete(this.#interrupts.keys().next().value!);
    this.#interrupts.set(unique, this.#clock.now());
    this.#lookAtInterrupts();
  }

  #lookAtInterrupts(): void {
    const now = this.#clock.now();
    for (const [unique, since] of this.#interrupts) {
      const request = this.#unanswered.get(unique);
      if (request ? this.#endIfKilled(unique, request) : now - since >= INTERRUPT_UNKNOWN_MAX)
        this.#interrupts.delete(unique);
    }
    this.#forgetLook?.();
    this.#forgetLook =
      this.#interrupts.size === 0
        ? undefined
        : this.#clock.after(INTERRUPT_LOOK, () => this.#lookAtInterrupts());
  }

  #endIfKilled(unique: bigint, request: RoutedRequest): boolean {
    if (request.reply.kind !== 'kernel' || !isBeingKilled(request.reply.caller)) return false;
    return this.#end(unique, request.reply.fuseFd, request);
  }

  /** Ends the requests of callers that are ending. */
  #lookAtCallers(): void {
    const threads = new Set<number>();
    for (const { reply } of this.#unanswered.values()) if (reply.kind === 'kernel') threads.add(reply.caller);
    this.#callers.keep(threads);
    const looked = [...threads].slice(0, CALLERS_MAX);
    const ending = new Set(looked.filter((thread) => this.#callers.isEnding(thread)));
    for (const [unique, request] of this.#unanswered)
      if (request.reply.kind === 'kernel' && ending.has(request.reply.caller))
        this.#end(unique, request.reply.fuseFd, request);
    this.#forgetCallerLook = undefined;
    if (this.#unanswered.size > 0) this.#lookLater();
  }

  #lookLater(): void {
    this.#forgetCallerLook ??= this.#clock.after(CALLER_LOOK, () => this.#lookAtCallers());
  }

  /** False: it is being made, and answered when it is. */
  #end(unique: bigint, fuseFd: number, request: RoutedRequest): boolean {
    request.unhold?.();
    if (request.begun) return request.unhold !== undefined;
    request.interrupted = true;
    this.#answerKernel(unique, fuseFd, request, -Errno.EINTR);
    return true;
  }

  #dispatch(participant: ParticipantEnd, request: RoutedRequest): void {
    if (request.reply.kind === 'kernel') {
      this.#unanswered.set(request.reply.unique, request);
      this.#callers.note(request.reply.caller);
      this.#lookLater();
    }
    const reply = (result: number): void => this.#answer(participant, request, result);
    if (request.op !== 'write' || !request.sync) this.#perform(request, reply);
    else {
      const { slot, fd, sync } = request;
      this.#perform(request, (written) => {
        if (written < 0) reply(written);
        else
          this.#perform(
            { op: 'fsync', slot, fd, reply: request.reply, datasync: sync === 'data' },
            (synced) => reply(synced < 0 ? synced : written),
          );
      });
    }
  }

  #perform(request: RoutedRequest, reply: Reply): void {
    const handle = this.#find(request.slot);
    if (handle) handle(request, reply);
    // Handed over just before the image left the mode `routed`.
    else if (this.#table.mode(request.slot) === ImageMode.fenced && request.op !== 'fsync')
      reply(-Errno.EROFS);
    else reply(performRouted(this.#calls, request));
  }

  #answer(participant: ParticipantEnd, request: RoutedRequest, result: number): void {
    const { reply } = request;
    switch (reply.kind) {
      case 'kernel':
        this.#answerKernel(reply.unique, reply.fuseFd, request, result);
        return;
      case 'port':
        closeOwn(request);
        participant.port.postMessage({ type: 'result', id: reply.id, result } satisfies RoutedResult);
        wakeParticipant(participant);
        return;
      default:
        reply satisfies never;
    }
  }

  #answerKernel(unique: bigint, fuseFd: number, request: RoutedRequest, result: number): void {
    if (!this.#unanswered.delete(unique)) return; // interrupted before
    closeOwn(request);
    replyToKernel(fuseFd, unique, result, request.op === 'write');
  }
}
