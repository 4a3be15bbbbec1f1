import type {
  BackOffAnswer,
  BackOffRequest,
  BrokerSnapshot,
  BrokerTerms,
  BrokerZone,
  PathLink,
} from '../leaves/broker.js';
import type { Clock } from '../leaves/clock.js';
import type { ErrorCode } from '../leaves/errors.js';
import { MigrateFsError, plainError } from '../leaves/errors.js';
import type { HotSpots, LinkLoad } from '../leaves/hot-spots.js';
import type { LogSink } from '../leaves/log-sink.js';
import type { Bytes, BytesPerSecond, Millis } from '../leaves/units.js';
import { bytes, millis, UNLIMITED } from '../leaves/units.js';
import { BackOffRequests } from './back-off-requests.js';
import { NextLook } from './next-look.js';
import type { Case, Congestion, Decision, Observation } from './policy/decision.js';
import { decisionPeriod } from './policy/period.js';
import type { ControlPoints, Peers } from './ports.js';
import { SharerCalls } from './sharer-calls.js';
import { completeTerms } from './terms.js';

/** The first look at the latest; rates are known by then, and a link may be hot already. */
const FIRST_LOOK_MAX = millis(1_000);
/** Of the period: long enough for the next request to come first, and no longer than needed once none comes. */
const REQUEST_VALIDITY = 1.5;
/** What a round of requests may take at the most; never more than the period. */
const ASK_TIMEOUT = millis(5_000);
/** A replica thread that is stuck must not keep the daemon from ending. */
const RELEASE_MAX = millis(2_000);
/** Looks in a row that fail before the migration is left to itself. */
const FAILURES_MAX = 3;

/** What a migration answers that is ending. */
const ENDING_CODES: readonly ErrorCode[] = ['NOT_FOUND', 'FAILED_PRECONDITION'];

export type Decide = (
  task: Case,
  observation: Observation,
  congestion: Congestion,
  previous: Decision | undefined,
) => Decision;

export interface BrokerOptions {
  readonly migrationId: string;
  readonly asked: Partial<BrokerTerms>;
  /** Wall clock. */
  readonly deadline?: Millis | undefined;
  /** Links that this host knows of by itself, as they are now. */
  readonly localLinks: () => readonly PathLink[];
  readonly points: ControlPoints;
  readonly hotSpots: HotSpots;
  readonly peers: Peers;
  readonly decide: Decide;
  readonly clock: Clock;
  readonly log: LogSink;
}

type Limits = { readonly net: BytesPerSecond; readonly disk: BytesPerSecond };

/** Manages one migration: looks, decides, sets its two limits, and asks those who share its links (Algorithm 1). */
export class Broker {
  readonly #options: BrokerOptions;
  readonly #requests: BackOffRequests;
  readonly #sharers: SharerCalls;
  readonly #period: Millis;
  #told: readonly PathLink[] = [];
  #decision: Decision | undefined;
  #congestion: Congestion = { hotLinks: [], saturatedLinks: [], askedBy: [] };
  #decidedAt: Millis | undefined;
  #decisions = 0;
  #bytesLeft: Bytes = bytes(0);
  /** In force at the migration. */
  #limits: Limits = { net: UNLIMITED, disk: UNLIMITED };
  #note = 'no decision yet';
  #failures = 0;
  #ended = false;

  constructor(options: BrokerOptions) {
    const { migrationId, asked, deadline, peers, clock, log } = options;
    this.#options = options;
    this.#requests = new BackOffRequests(clock);
    this.#sharers = new SharerCalls({ migrationId, peers, log });
    this.#period = decisionPeriod(asked, clock.wall(), deadline);
  }

  get snapshot(): BrokerSnapshot {
    const { migrationId } = this.#options;
    return {
      migrationId,
      terms: this.#terms,
      period: this.#period,
      path: this.path,
      zone: this.#zone,
      ...(this.#decision?.ratio !== undefined && { ratio: this.#decision.ratio }),
      netLimit: this.#limits.net,
      diskLimit: this.#limits.disk,
      hotLinks: this.#congestion.hotLinks,
      askedBy: this.#congestion.askedBy,
      bytesLeft: this.#bytesLeft,
      reason: this.#note,
      ...(this.#decidedAt !== undefined && { decidedAt: this.#decidedAt }),
      decisions: this.#decisions,
      ended: this.#ended,
    };
  }

  /** What it was told, then what the host knows beside that. */
  get path(): readonly PathLink[] {
    const told = new Set(this.#told.map(({ link }) => link));
    return [...this.#told, ...this.#options.localLinks().filter(({ link }) => !told.has(link))];
  }

  setPath(path: readonly PathLink[]): void {
    this.#told = path;
    this.#sharers.forget();
  }

  /** INVALID_ARGUMENT: the migration does not cross that link. RESOURCE_EXHAUSTED: too many ask already. */
  backOff(request: BackOffRequest): BackOffAnswer {
    if (this.#ended) return 'ended';
    if (this.#told.length > 0 && !this.path.some(({ link }) => link === request.link))
      throw new MigrateFsError(
        'INVALID_ARGUMENT',
        `migration ${request.migrationId} does not cross ${request.link.slice(0, 128)}`,
      );
    if (this.#zone === 'danger') return 'in-danger';
    this.#requests.add(request);
    return 'obeyed';
  }

  /** Resolves when the migration has ended or `signal` aborts, with no limit of the broker in force; never rejects. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, hotSpots } = this.#options;
    const next = new NextLook({ clock, hotSpots, isNews: (load) => this.#isNews(load) });
    let wait = millis(Math.min(this.#period, FIRST_LOOK_MAX));
    let asking: Promise<void> = Promise.resolve();
    try {
      do {
        await Promise.all([next.due(wait, signal), asking]);
        asking = Promise.resolve();
        wait = this.#period;
        try {
          if (!(await this.#look(signal))) break;
          this.#failures = 0;
          asking = this.#ask(signal);
        } catch (error) {
          if (!this.#goesOn(error, signal)) break;
        }
      } while (!signal.aborted);
    } catch (error) {
      if (!signal.aborted) this.#log('error', 'the broker has failed', { err: error });
    }
    await this.#release();
    this.#ended = true;
  }

  get #terms(): BrokerTerms {
    return completeTerms(this.#options.asked, this.path);
  }

  get #zone(): BrokerZone {
    return this.#decision?.zone ?? 'calm';
  }

  /** A link became hot, or the last reason to yield is gone. Before the first look there is nothing to be early for. */
  #isNews({ link, hot }: LinkLoad): boolean {
    if (this.#decisions === 0) return false;
    const wasHot = this.#congestion.hotLinks.includes(link);
    if (hot) return !wasHot && this.path.some((each) => each.link === link);
    return wasHot && !this.#requests.any && this.#hotLinks().length === 0;
  }

  /** One look and what follows from it. False: the migration has ended. */
  async #look(signal: AbortSignal): Promise<boolean> {
    const { points, decide, deadline } = this.#options;
    const observation = await points.observe(signal);
    if (observation === 'ended') {
      // Its limits ended with it.
      this.#limits = { net: UNLIMITED, disk: UNLIMITED };
      return false;
    }
    const congestion = this.#currentCongestion();
    const task: Case = { terms: this.#terms, ...(deadline !== undefined && { deadline }) };
    const previous = this.#decision;
    const decision = decide(task, observation, congestion, previous);
    this.#decision = decision;
    this.#congestion = congestion;
    this.#decidedAt = observation.at;
    this.#decisions++;
    this.#bytesLeft = observation.load.left;
    this.#note = decision.reason;
    this.#audit(decision, previous);
    await this.#apply({ net: decision.netLimit, disk: decision.diskLimit }, signal);
    return true;
  }

  /** A link that nobody measures counts as saturated where others share it: asking them costs a message. */
  #currentCongestion(): Congestion {
    const loads = this.#loads();
    return {
      hotLinks: this.#hotLinks(),
      saturatedLinks: this.path
        .filter(({ link, sharers }) => loads.get(link)?.saturated ?? sharers.length > 0)
        .map(({ link }) => link),
      askedBy: this.#requests.count(),
    };
  }

  #loads(): ReadonlyMap<string, LinkLoad> {
    return new Map(this.#options.hotSpots.loads().map((load) => [load.link, load]));
  }

  #hotLinks(): readonly string[] {
    const loads = this.#loads();
    return this.path.filter(({ link }) => loads.get(link)?.hot).map(({ link }) => link);
  }

  /** Each limit for itself, so that a failure of one leaves nothing unknown of the other. */
  async #apply({ net, disk }: Limits, signal: AbortSignal): Promise<void> {
    const { points } = this.#options;
    if (net !== this.#limits.net) {
      await points.setNetworkLimit(net, signal);
      this.#limits = { ...this.#limits, net };
    }
    if (disk !== this.#limits.disk) {
      await points.setDiskLimit(disk, signal);
      this.#limits = { ...this.#limits, disk };
    }
  }

  async #release(): Promise<void> {
    const { points, clock } = this.#options;
    const late = new AbortController();
    const forget = clock.after(RELEASE_MAX, () => late.abort(new Error('it took too long')));
    const { net, disk } = this.#limits;
    this.#limits = { net: UNLIMITED, disk: UNLIMITED };
    // A migration that has ended meanwhile has no limits; a daemon that ends takes them along.
    const unheard = (error: unknown): void =>
      this.#log('debug', 'a limit of the broker was not released', { error: plainError(error).message });
    if (net !== UNLIMITED) await points.setNetworkLimit(UNLIMITED, late.signal).catch(unheard);
    if (disk !== UNLIMITED) await points.setDiskLimit(UNLIMITED, late.signal).catch(unheard);
    forget();
  }

  /** Asks while the period runs; never rejects. */
  #ask(signal: AbortSignal): Promise<void> {
    const askOn = new Set(this.#decision?.askOn);
    if (askOn.size === 0) return Promise.resolve();
    const { clock } = this.#options;
    const late = new AbortController();
    const forget = clock.after(millis(Math.min(ASK_TIMEOUT, this.#period)), () => late.abort());
    const links = this.path.filter(({ link }) => askOn.has(link));
    const request = {
      ratio: this.#decision?.ratio ?? 0,
      validFor: millis(this.#period * REQUEST_VALIDITY),
    };
    return this.#sharers.ask(links, request, AbortSignal.any([signal, late.signal])).finally(forget);
  }

  /** After a look that failed: whether there is to be another one. */
  #goesOn(error: unknown, signal: AbortSignal): boolean {
    if (signal.aborted) return false;
    this.#failures++;
    const last = this.#failures >= FAILURES_MAX;
    const message = last
      ? 'the broker gives the migration up: it goes on without limits of a broker'
      : 'the broker could not look after its migration; it will try again';
    this.#note = `${message}: ${plainError(error).message}`;
    // Most likely it has just ended; the next look tells.
    const ending = error instanceof MigrateFsError && ENDING_CODES.includes(error.code);
    this.#log(last ? 'error' : ending ? 'debug' : 'warn', message, { err: error });
    return !last;
  }

  #audit(decision: Decision, previous: Decision | undefined): void {
    const changed =
      decision.netLimit !== (previous?.netLimit ?? UNLIMITED) ||
      decision.diskLimit !== (previous?.diskLimit ?? UNLIMITED) ||
      decision.zone !== (previous?.zone ?? 'calm') ||
      decision.askOn.join() !== (previous?.askOn.join() ?? '');
    this.#log(changed ? 'info' : 'debug', `broker: ${decision.reason}`, {
      zone: decision.zone,
      ratio: decision.ratio,
      netLimit: loggedLimit(decision.netLimit),
      diskLimit: loggedLimit(decision.diskLimit),
      hotLinks: this.#congestion.hotLinks,
      askedBy: this.#congestion.askedBy,
      askOn: decision.askOn,
    });
  }

  #log(level: Parameters<LogSink>[0], message: string, fields: object): void {
    this.#options.log(level, message, { migration: this.#options.migrationId, ...fields });
  }
}

const loggedLimit = (limit: BytesPerSecond): number | 'none' =>
  limit === UNLIMITED ? 'none' : Math.round(limit);
