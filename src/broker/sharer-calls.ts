import type { BackOffRequest, PathLink, Sharer } from '../leaves/broker.js';
import { plainError } from '../leaves/errors.js';
import type { LogSink } from '../leaves/log-sink.js';
import type { Millis } from '../leaves/units.js';
import type { Peers } from './ports.js';

/** Sharers that are asked after one decision; more links than that many VMs cross are not of one cloud. */
const ASKED_MAX = 256;
/** Calls under way. */
const CALLS_MAX = 16;

interface SharerCallsOptions {
  readonly migrationId: string;
  readonly peers: Peers;
  readonly log: LogSink;
}

/** A sharer, and the link for whose sake it is asked. */
interface Call {
  readonly sharer: Sharer;
  readonly link: string;
}

/** Asks the migrations that share links to back off. Nothing that a peer does or fails to do gets out of here. */
export class SharerCalls {
  readonly #migrationId: string;
  readonly #peers: Peers;
  readonly #log: LogSink;
  /** Ids of those who said that they have ended. */
  readonly #ended = new Set<string>();
  /** Ids of those who could not be reached when last asked, so that only the first time is a warning. */
  readonly #silent = new Set<string>();

  constructor({ migrationId, peers, log }: SharerCallsOptions) {
    this.#migrationId = migrationId;
    this.#peers = peers;
    this.#log = log;
  }

  /** Another path: what was known of its sharers may no longer hold. */
  forget(): void {
    this.#ended.clear();
    this.#silent.clear();
  }

  /** Resolves when each has answered or failed, or `signal` aborts. */
  async ask(
    links: readonly PathLink[],
    request: { readonly ratio: number; readonly validFor: Millis },
    signal: AbortSignal,
  ): Promise<void> {
    const calls = this.#callsFor(links);
    let next = 0;
    const worker = async (): Promise<void> => {
      for (let call = calls[next++]; call && !signal.aborted; call = calls[next++])
        await this.#one(call, request, signal);
    };
    await Promise.all(Array.from({ length: Math.min(CALLS_MAX, calls.length) }, worker));
  }

  /** Each sharer once, whatever number of links it shares. */
  #callsFor(links: readonly PathLink[]): readonly Call[] {
    const calls = new Map<string, Call>();
    for (const { link, sharers } of links)
      for (const sharer of sharers) {
        const id = sharer.migrationId;
        if (calls.size >= ASKED_MAX || id === this.#migrationId || this.#ended.has(id) || calls.has(id))
          continue;
        calls.set(id, { sharer, link });
      }
    return [...calls.values()];
  }

  async #one(
    { sharer, link }: Call,
    { ratio, validFor }: { readonly ratio: number; readonly validFor: Millis },
    signal: AbortSignal,
  ): Promise<void> {
    const id = sharer.migrationId;
    const request: BackOffRequest = { migrationId: id, from: this.#migrationId, link, validFor, ratio };
    const fields = { migration: this.#migrationId, sharer: id, server: sharer.server, link };
    try {
      const answer = await this.#peers.backOff(sharer, request, signal);
      this.#silent.delete(id);
      if (answer === 'ended') this.#ended.add(id);
      this.#log('debug', 'asked a sharer to back off', { ...fields, answer });
    } catch (error) {
      const known = this.#silent.has(id);
      this.#silent.add(id);
      this.#log(known ? 'debug' : 'warn', 'a sharer cannot be asked to back off', {
        ...fields,
        error: plainError(error).message,
      });
    }
  }
}
