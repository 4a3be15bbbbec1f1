import { type Options, SingleBar } from 'cli-progress';
import type { Clock } from '../leaves/clock.js';
import type { MigrationSnapshot, MigrationState } from '../leaves/migration.js';
import { isFinal } from '../leaves/migration.js';
import type { Millis } from '../leaves/units.js';
import { millis } from '../leaves/units.js';
import {
  DETAIL_LEVELS,
  doneFraction,
  endLine,
  percent,
  progressDetails,
  progressLine,
  stateWords,
  toJson,
} from './render.js';

/** Between two plain lines of the same phase. */
const LINE_INTERVAL = millis(5000);
const BAR_WIDTH_MAX = 30;
const BAR_WIDTH_MIN = 8;
/** The longest phase name is `dirty resend`. */
const PHASE_WIDTH = 12;
const COLUMNS_DEFAULT = 80;

/** Shows how a migration goes on. */
export interface Reporter {
  show(snapshot: MigrationSnapshot): void;
  /** A line for the person at the keyboard. */
  note(line: string): void;
  /** Leaves the terminal as it was. Idempotent. */
  end(): void;
}

/** Every snapshot as one line of JSON on stdout; notes on stderr. */
class JsonReporter implements Reporter {
  show(snapshot: MigrationSnapshot): void {
    console.log(toJson(snapshot));
  }

  note(line: string): void {
    console.error(line);
  }

  end(): void {}
}

/** For pipes and logs: a line at each change of phase, and every five seconds between. */
export class LineReporter implements Reporter {
  readonly #clock: Clock;
  readonly #named: boolean;
  readonly #write: (line: string) => void;
  readonly #last = new Map<string, { readonly state: MigrationState; readonly at: Millis }>();

  /** `named`: begin each line with the id, because several migrations are shown. */
  constructor(clock: Clock, named: boolean, write: (line: string) => void = console.log) {
    this.#clock = clock;
    this.#named = named;
    this.#write = write;
  }

  show(snapshot: MigrationSnapshot): void {
    const last = this.#last.get(snapshot.id);
    const now = this.#clock.now();
    if (last?.state === snapshot.state && now - last.at < LINE_INTERVAL) return;
    this.#last.set(snapshot.id, { state: snapshot.state, at: now });
    const text = isFinal(snapshot.state) ? endLine(snapshot) : progressLine(snapshot, this.#clock.wall());
    const time = new Date(this.#clock.wall()).toISOString();
    this.#write(`${time} ${this.#named ? `${snapshot.id} ` : ''}${text}`);
  }

  note(line: string): void {
    this.#write(line);
  }

  end(): void {}
}

/** The text of the bar for a terminal of `columns`; never wider. Details make way for the bar. */
export const barLine = (snapshot: MigrationSnapshot, now: Millis, columns: number): string => {
  const phase = stateWords(snapshot.state).padEnd(PHASE_WIDTH);
  const text = (level: (typeof DETAIL_LEVELS)[number]): string =>
    [percent(snapshot).padStart(4), ...progressDetails(snapshot, now, level)].join('  ');
  for (const level of DETAIL_LEVELS) {
    const details = text(level);
    // Brackets, a blank on both sides, and the last column, where some terminals wrap.
    const room = Math.min(BAR_WIDTH_MAX, columns - phase.length - details.length - 5);
    if (room < BAR_WIDTH_MIN) continue;
    const filled = Math.floor(doneFraction(snapshot) * room);
    return `${phase} [${'#'.repeat(filled)}${'.'.repeat(room - filled)}] ${details}`;
  }
  return `${phase.trimEnd()} ${text('full').trimStart()}`.slice(0, columns - 1);
};

/** A progress bar on a terminal, redrawn in place. */
class BarReporter implements Reporter {
  readonly #bar: SingleBar;
  readonly #stream: NodeJS.WriteStream;
  #snapshot: MigrationSnapshot | undefined;
  #phase: 'new' | 'drawing' | 'ended' = 'new';

  constructor(clock: Clock, stream: NodeJS.WriteStream) {
    this.#stream = stream;
    this.#bar = new SingleBar({
      stream,
      hideCursor: true,
      fps: 5,
      forceRedraw: true,
      format: () =>
        this.#snapshot ? barLine(this.#snapshot, clock.wall(), stream.columns || COLUMNS_DEFAULT) : '',
    } as Options);
  }

  show(snapshot: MigrationSnapshot): void {
    if (this.#phase === 'ended') return;
    this.#snapshot = snapshot;
    if (this.#phase === 'new') {
      this.#phase = 'drawing';
      this.#bar.start(1, 0);
    }
    this.#bar.update(doneFraction(snapshot));
    if (isFinal(snapshot.state)) {
      this.end();
      this.#stream.write(`${endLine(snapshot)}\n`);
    }
  }

  note(line: string): void {
    if (this.#phase === 'drawing') this.#stream.write('\r\u001b[K');
    this.#stream.write(`${line}\n`);
    if (this.#phase === 'drawing') this.#bar.render();
  }

  end(): void {
    if (this.#phase === 'drawing') this.#bar.stop();
    this.#phase = 'ended';
  }
}

/** The reporter that fits where stdout goes. */
export const reporterFor = (clock: Clock, options: { json: boolean; named: boolean }): Reporter => {
  if (options.json) return new JsonReporter();
  return process.stdout.isTTY && !options.named
    ? new BarReporter(clock, process.stdout)
    : new LineReporter(clock, options.named);
};
