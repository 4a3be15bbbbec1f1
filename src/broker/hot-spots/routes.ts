/** Which interface leads to which host, looked up beside whoever asks. */
import type { Clock } from '../../leaves/clock.js';
import type { LogSink } from '../../leaves/log-sink.js';
import type { Millis } from '../../leaves/units.js';
import { millis } from '../../leaves/units.js';
import type { NetworkInterfaces } from './network-interfaces.js';

interface Route {
  /** Absent: not known. */
  name?: string;
  /** When it is to be looked up again; absent: a look-up is under way. */
  due?: Millis;
  /** It was logged that it cannot be told. */
  complained?: boolean;
}

/** Routes change; a look-up starts a process. */
const REFRESH = millis(60_000);
const RETRY = millis(5_000);
const ROUTES_MAX = 1024;

export class Routes {
  readonly #interfaces: Pick<NetworkInterfaces, 'towards'>;
  readonly #clock: Clock;
  readonly #log: LogSink;
  readonly #signal: AbortSignal;
  readonly #routes = new Map<string, Route>();

  constructor(
    interfaces: Pick<NetworkInterfaces, 'towards'>,
    options: { readonly clock: Clock; readonly log: LogSink; readonly signal: AbortSignal },
  ) {
    this.#interfaces = interfaces;
    this.#clock = options.clock;
    this.#log = options.log;
    this.#signal = options.signal;
  }

  /** The interface as far as it is known: the first question only starts the look-up. */
  towards(host: string): string | undefined {
    const route = this.#routes.get(host) ?? { due: this.#clock.now() };
    if (route.due !== undefined && route.due <= this.#clock.now()) {
      if (!this.#routes.has(host) && this.#routes.size >= ROUTES_MAX) {
        const [oldest] = this.#routes.keys();
        this.#routes.delete(oldest!);
      }
      this.#routes.set(host, route);
      delete route.due;
      void this.#lookUp(host, route);
    }
    return route.name;
  }

  async #lookUp(host: string, route: Route): Promise<void> {
    try {
      route.name = await this.#interfaces.towards(host, this.#signal);
      route.due = millis(this.#clock.now() + REFRESH);
      delete route.complained;
    } catch (error) {
      if (this.#signal.aborted) return;
      delete route.name;
      if (!route.complained) {
        const [why] = (error as Error).message.split('\n');
        this.#log('warn', `cannot tell which interface leads to ${host}: ${why}`);
      }
      route.complained = true;
      route.due = millis(this.#clock.now() + RETRY);
    }
  }
}
