/** Quantities looked at in equal intervals, kept as a table. */
import { writeFileSync } from 'node:fs';
import type { Teardown } from './scratch.js';

/** One quantity over time; `undefined` where it was not known. */
export interface Series {
  readonly name: string;
  readonly values: readonly (number | undefined)[];
}

export interface Table {
  /** Seconds since the recording began. */
  readonly seconds: readonly number[];
  readonly series: readonly Series[];
}

interface Column {
  readonly name: string;
  readonly read: () => number | undefined;
  readonly values: (number | undefined)[];
}

/** Enough for an hour of half seconds. */
const ROWS_MAX = 7200;

export class Recording {
  readonly #columns: Column[] = [];
  readonly #seconds: number[] = [];
  readonly #interval: number;
  #began = 0;
  #timer: NodeJS.Timeout | undefined;

  /** `interval` in milliseconds. */
  constructor(interval: number) {
    this.#interval = interval;
  }

  /** A quantity as it is. */
  value(name: string, read: () => number | undefined): this {
    this.#columns.push({ name, read, values: [] });
    return this;
  }

  /**
   * What a growing count gains per second; it may begin later, end, and begin anew. `window` is for counts that are
   * known less often than they are looked at: milliseconds, at least the interval.
   */
  rate(name: string, count: () => number | undefined, window = this.#interval): this {
    const looks = Math.max(1, Math.round(window / this.#interval));
    let known: { readonly at: number; readonly count: number }[] = [];
    const read = (): number | undefined => {
      const now = count();
      if (now === undefined || now < (known.at(-1)?.count ?? 0)) known = [];
      if (now === undefined) return undefined;
      const at = performance.now();
      known = [...known, { at, count: now }].slice(-looks - 1);
      return known.length > 1 ? ((now - known[0]!.count) / (at - known[0]!.at)) * 1000 : undefined;
    };
    this.#columns.push({ name, read, values: [] });
    return this;
  }

  start(t: Teardown): this {
    this.#began = performance.now();
    this.#timer = setInterval(() => this.#look(), this.#interval);
    t.teardown(() => clearInterval(this.#timer));
    return this;
  }

  /** Seconds since it began: for marks. */
  get now(): number {
    return (performance.now() - this.#began) / 1000;
  }

  stop(): Table {
    clearInterval(this.#timer);
    return this.table;
  }

  get table(): Table {
    return {
      seconds: [...this.#seconds],
      series: this.#columns.map(({ name, values }) => ({ name, values: [...values] })),
    };
  }

  #look(): void {
    if (this.#seconds.length >= ROWS_MAX) return;
    const now = performance.now();
    this.#seconds.push((now - this.#began) / 1000);
    for (const { read, values } of this.#columns) values.push(read());
  }
}

/** Values of one series between two moments, both in seconds; those not known are left out. */
export const between = (table: Table, name: string, from: number, to: number): number[] => {
  const series = table.series.find((each) => each.name === name);
  if (!series) throw new Error(`no series ${name}`);
  return series.values.filter(
    (value, row): value is number =>
      value !== undefined && table.seconds[row]! > from && table.seconds[row]! <= to,
  );
};

export const mean = (values: readonly number[]): number =>
  values.reduce((sum, value) => sum + value, 0) / values.length;

const cell = (value: number | undefined): string =>
  value === undefined ? '' : Number.isFinite(value) ? String(Number(value.toPrecision(6))) : String(value);

/** One row a moment, one column a series; an empty cell is a value not known. */
export const writeCsv = (path: string, { seconds, series }: Table): void => {
  const rows = seconds.map((at, row) =>
    [at.toFixed(2), ...series.map(({ values }) => cell(values[row]))].join(','),
  );
  writeFileSync(path, `${[['seconds', ...series.map(({ name }) => name)].join(','), ...rows].join('\n')}\n`);
};
