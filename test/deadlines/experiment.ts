/** What the experiments of `npm run test:deadlines` share. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Chart, writeChart } from '../support/line-chart.js';
import { type Table, writeCsv } from '../support/recording.js';
import type { Teardown } from '../support/scratch.js';
import type { TestDaemon } from '../support/test-daemon.js';

export const MB = 1e6;

export interface Context {
  readonly t: Teardown;
  /** Where data and charts go; absent: nowhere. */
  readonly out?: string;
  readonly seed: number;
  readonly say: (line: string) => void;
}

/** A measured figure, and whether it is as it must be; without `holds` it is information. */
export interface Finding {
  readonly what: string;
  readonly measured: string;
  readonly wanted?: string;
  readonly holds?: boolean;
}

export type Experiment = (context: Context) => Promise<readonly Finding[]>;

export const atLeast = (what: string, value: number, bar: number, unit = ''): Finding => ({
  what,
  measured: `${value.toFixed(2)}${unit}`,
  wanted: `>= ${bar}${unit}`,
  holds: value >= bar,
});

export const atMost = (what: string, value: number, bar: number, unit = ''): Finding => ({
  what,
  measured: `${value.toFixed(2)}${unit}`,
  wanted: `<= ${bar}${unit}`,
  holds: value <= bar,
});

export const figure = (what: string, value: number, unit = ''): Finding => ({
  what,
  measured: `${value.toFixed(2)}${unit}`,
});

export const isSo = (what: string, measured: string, wanted: string, holds: boolean): Finding => ({
  what,
  measured,
  wanted,
  holds,
});

/** Writes the table as `NAME.csv` and the chart as `NAME.svg` where output is wanted. */
export const publish = (
  { out, say }: Context,
  name: string,
  table: Table,
  chart: Omit<Chart, 'seconds'>,
): void => {
  if (out === undefined) return;
  writeCsv(join(out, `${name}.csv`), table);
  writeChart(join(out, `${name}.svg`), { ...chart, seconds: table.seconds });
  say(`wrote ${join(out, name)}.csv and .svg`);
};

/** Writes what the brokers of a daemon decided and why, as it logged it, to `NAME.txt`. */
export const publishDecisions = ({ out }: Context, name: string, daemon: TestDaemon, since: number): void => {
  if (out === undefined) return;
  const lines = daemon.log.flatMap((line) => {
    const {
      time,
      msg = '',
      migration = '',
    } = JSON.parse(line) as { time: number; msg?: string; migration?: string };
    return msg.startsWith('broker: ') || msg.includes('back off')
      ? [`${((time - since) / 1000).toFixed(2)} ${migration.slice(0, 8)} ${msg}`]
      : [];
  });
  writeFileSync(join(out, `${name}.txt`), `${lines.join('\n')}\n`);
};

/** The values of a series, in millions: MB/s for the charts. */
export const inMb = (table: Table, name: string): readonly (number | undefined)[] =>
  table.series
    .find((each) => each.name === name)!
    .values.map((value) => (value === undefined || !Number.isFinite(value) ? undefined : value / MB));
