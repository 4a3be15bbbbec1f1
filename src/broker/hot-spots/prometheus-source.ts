/** Links as a Prometheus server sees them: queries asked at an interval. */
import { readFileSync } from 'node:fs';
import type { Clock } from '../../leaves/clock.js';
import { MigrateFsError } from '../../leaves/errors.js';
import type { LinkLoad } from '../../leaves/hot-spots.js';
import type { LogSink } from '../../leaves/log-sink.js';
import type { BytesPerSecond } from '../../leaves/units.js';
import { millis } from '../../leaves/units.js';
import type { PrometheusConfig, QueryConfig } from './config.js';
import { isLinkName } from './config.js';
import { httpGet } from './http-query.js';
import type { LinkBoard } from './link-board.js';
import type { LinkState, LinkThresholds } from './link-state.js';
import { isHot, nextLinkState } from './link-state.js';
import type { VectorSample } from './vector-answer.js';
import { parseVector } from './vector-answer.js';

/** Asks one query and gives the body of the answer; rejects when there is none, or the signal aborts. */
export type AskPrometheus = (query: string, signal: AbortSignal) => Promise<string>;

interface PrometheusSourceOptions {
  readonly config: Pick<PrometheusConfig, 'interval' | 'timeout' | 'staleAfter' | 'queries'>;
  readonly thresholds: LinkThresholds;
  readonly ask: AskPrometheus;
  readonly board: LinkBoard;
  readonly clock: Clock;
  readonly log: LogSink;
}

interface Measured {
  readonly utilisation: number;
  readonly rate?: number;
  readonly capacity?: BytesPerSecond;
}

const LINKS_MAX = 4096;

/** Reads a file that the configuration names. INVALID_ARGUMENT: it cannot be read. */
export const secretFile = (what: string, path: string): string => {
  try {
    const text = readFileSync(path, 'utf8').trim();
    if (text !== '') return text;
  } catch (error) {
    throw new MigrateFsError(
      'INVALID_ARGUMENT',
      `hot-spots: cannot read the ${what} ${path}: ${(error as Error).message}`,
      { cause: error },
    );
  }
  throw new MigrateFsError('INVALID_ARGUMENT', `hot-spots: the ${what} ${path} is empty`);
};

/** Asks the server of a configuration. INVALID_ARGUMENT: one of its files cannot be read. */
export const askServer = ({ server, tokenFile, caFile, timeout }: PrometheusConfig): AskPrometheus => {
  const headers =
    tokenFile === undefined ? {} : { authorization: `Bearer ${secretFile('token', tokenFile)}` };
  const ca = caFile === undefined ? {} : { ca: secretFile('authorities', caFile) };
  // A server may have a path of its own before that of the API.
  const base = new URL('api/v1/query', server.href.endsWith('/') ? server : `${server.href}/`);
  return (query, signal) => {
    const url = new URL(base);
    url.searchParams.set('query', query);
    url.searchParams.set('timeout', `${Math.ceil(timeout)}ms`);
    return httpGet({ url, headers, ...ca, signal });
  };
};

/** What one sample says of its link; undefined: nothing usable. */
const measuredOf = (config: QueryConfig, link: string, value: number): Measured | undefined => {
  if (!Number.isFinite(value) || value < 0) return undefined;
  if (config.value === 'utilisation') return { utilisation: value };
  const capacity = config.capacities.get(link) ?? config.capacity;
  return capacity === undefined ? undefined : { utilisation: value / capacity, rate: value, capacity };
};

/** Links of an answer; of several samples of one link the busiest counts. The rest is told by `unusable`. */
export const linksOf = (
  config: QueryConfig,
  samples: readonly VectorSample[],
): { readonly links: ReadonlyMap<string, Measured>; readonly unusable: number } => {
  const links = new Map<string, Measured>();
  let unusable = 0;
  for (const { labels, value } of samples) {
    const label = Object.hasOwn(labels, config.label) ? labels[config.label]! : '';
    const link = config.names.get(label) ?? label;
    const measured = isLinkName(link) ? measuredOf(config, link, value) : undefined;
    if (!measured || (!links.has(link) && links.size >= LINKS_MAX)) unusable++;
    else if (measured.utilisation >= (links.get(link)?.utilisation ?? 0)) links.set(link, measured);
  }
  return { links, unusable };
};

/** One query, asked again and again. */
class Query implements Disposable {
  readonly #options: PrometheusSourceOptions;
  readonly #config: QueryConfig;
  readonly #source: string;
  readonly #ending = new AbortController();
  #states = new Map<string, LinkState>();
  #problem: string | undefined;
  #stopTimer: () => void = () => {};

  constructor(options: PrometheusSourceOptions, config: QueryConfig, source: string) {
    this.#options = options;
    this.#config = config;
    this.#source = source;
    void this.#poll();
  }

  [Symbol.dispose](): void {
    this.#ending.abort();
    this.#stopTimer();
  }

  async #poll(): Promise<void> {
    const { clock, config } = this.#options;
    const began = clock.now();
    await this.#ask();
    if (this.#ending.signal.aborted) return;
    const wait = Math.max(0, config.interval - (clock.now() - began));
    this.#stopTimer = clock.after(millis(wait), () => void this.#poll());
  }

  async #ask(): Promise<void> {
    const { ask, config, clock } = this.#options;
    const late = new AbortController();
    const forget = clock.after(config.timeout, () =>
      late.abort(new MigrateFsError('DEADLINE_EXCEEDED', `no answer within ${config.timeout} ms`)),
    );
    try {
      const signal = AbortSignal.any([this.#ending.signal, late.signal]);
      const samples = parseVector(await ask(this.#config.query, signal));
      if (!this.#ending.signal.aborted) this.#take(samples);
    } catch (error) {
      if (!this.#ending.signal.aborted) this.#note((error as Error).message);
    } finally {
      forget();
    }
  }

  #take(samples: readonly VectorSample[]): void {
    const { board, clock, config, thresholds } = this.#options;
    const { links, unusable } = linksOf(this.#config, samples);
    const states = new Map<string, LinkState>();
    for (const [link, { utilisation, rate, capacity }] of links) {
      const sample = { at: clock.now(), utilisation };
      const state = nextLinkState(this.#states.get(link), sample, thresholds, config.staleAfter);
      states.set(link, state);
      const load: LinkLoad = {
        link,
        at: clock.wall(),
        saturated: state.saturation.high,
        hot: isHot(state),
        source: this.#source,
        ...(rate === undefined ? {} : { rate }),
        ...(capacity === undefined ? {} : { capacity }),
      };
      board.report(this.#source, { load, evidence: 'measured' }, config.staleAfter);
    }
    // A link that is missing once may be back in the next answer; the board forgets it when it is stale.
    for (const [link, state] of this.#states)
      if (!states.has(link) && clock.now() - state.at! <= config.staleAfter) states.set(link, state);
    this.#states = states;
    this.#note(
      unusable > 0
        ? `${unusable} of ${samples.length} samples have no usable label '${this.#config.label}', value or capacity`
        : samples.length === 0
          ? 'the answer is empty'
          : undefined,
    );
  }

  /** Logs a problem when it begins or changes, and when there is none any more. */
  #note(problem: string | undefined): void {
    const { log } = this.#options;
    if (problem === this.#problem) return;
    if (problem === undefined) log('info', `${this.#source} answers again`);
    else log('warn', `${this.#source}: ${problem.replace(/\s+/g, ' ')}`);
    this.#problem = problem;
  }
}

export class PrometheusSource implements Disposable {
  readonly #queries: readonly Query[];

  constructor(options: PrometheusSourceOptions) {
    const names = new Set<string>();
    this.#queries = options.config.queries.map((config) => {
      // Two queries with the same name are two sources all the same.
      let name = `prometheus query ${config.name}`;
      while (names.has(name)) name += "'";
      names.add(name);
      return new Query(options, config, name);
    });
  }

  [Symbol.dispose](): void {
    for (const query of this.#queries) query[Symbol.dispose]();
  }
}
