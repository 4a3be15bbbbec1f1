import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import type { LogSink } from '../../leaves/log-sink.js';
import { isLinkName } from './config.js';

/** An alert that fires. Instants are of the wall clock: it outlives the process. */
export interface FiringAlert {
  readonly key: string;
  readonly link: string;
  readonly name: string;
  readonly at: number;
  /** When it counts no more. */
  readonly until: number;
}

const isFiringAlert = (value: unknown): value is FiringAlert => {
  const { key, link, name, at, until } = (value ?? {}) as Partial<Record<keyof FiringAlert, unknown>>;
  return (
    [key, name].every((text) => typeof text === 'string') &&
    typeof link === 'string' &&
    isLinkName(link) &&
    [at, until].every((instant) => Number.isFinite(instant))
  );
};

/** Where firing alerts are kept for the next process. One that cannot be used is as good as an empty one: they are sent again. */
export class AlertFile {
  readonly #path: string;
  readonly #log: LogSink;

  constructor(path: string, log: LogSink) {
    this.#path = path;
    this.#log = log;
  }

  read(): readonly FiringAlert[] {
    try {
      const alerts: unknown = JSON.parse(readFileSync(this.#path, 'utf8'));
      return Array.isArray(alerts) ? alerts.filter(isFiringAlert) : [];
    } catch {
      return [];
    }
  }

  write(alerts: readonly FiringAlert[]): void {
    try {
      writeFileSync(`${this.#path}.new`, JSON.stringify(alerts));
      renameSync(`${this.#path}.new`, this.#path);
    } catch (error) {
      this.#log('warn', `cannot keep the alerts in ${this.#path}: ${(error as Error).message}`);
    }
  }
}
