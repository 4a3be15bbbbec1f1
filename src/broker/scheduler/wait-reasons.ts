import type { Clock } from '../../leaves/clock.js';
import type { Millis } from '../../leaves/units.js';
import { millis } from '../../leaves/units.js';
import type { PlanStep } from '../policy/task.js';
import type { TaskBook } from './task-book.js';

/** A reason of which only the numbers change is recorded again after this. */
const REASON_PERIOD = millis(60_000);

type Wait = Extract<PlanStep, { action: 'wait' }>;

/** Numbers with their units, also several in one: `59m59s`, `1.0 GB/s`, `12:05:00Z`. */
const AMOUNT = /(?:[\d.:]+(?:\s?(?:[KMGTP]?B(?:\/s)?|ms|[dhms]))?)+/g;

const keyOf = ({ cause, reason }: Wait): string => `${cause}:${reason.replace(AMOUNT, '')}`;

/** Why tasks wait, as it was recorded last. */
export class WaitReasons {
  readonly #book: TaskBook;
  readonly #clock: Clock;
  readonly #recorded = new Map<string, { readonly key: string; readonly at: Millis }>();

  constructor(book: TaskBook, clock: Clock) {
    this.#book = book;
    this.#clock = clock;
  }

  /** Records reasons that are others; those of which only the numbers are, now and then. One of each task. */
  note(waits: readonly Wait[]): void {
    const at = this.#clock.now();
    const due = waits.filter((wait) => {
      const last = this.#recorded.get(wait.id);
      return last === undefined || last.key !== keyOf(wait) || at - last.at >= REASON_PERIOD;
    });
    this.#book.noteReasons(due.filter(({ id, reason }) => this.#book.get(id).reason !== reason));
    for (const wait of due) this.#recorded.set(wait.id, { key: keyOf(wait), at });
  }

  forget(id: string): void {
    this.#recorded.delete(id);
  }
}
