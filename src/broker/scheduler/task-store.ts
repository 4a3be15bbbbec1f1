import { randomBytes } from 'node:crypto';
import { mkdirSync } from 'node:fs';
import type { Key, RootDatabase } from 'lmdb';
import { open } from 'lmdb';
import { MigrateFsError } from '../../leaves/errors.js';
import type { TaskDecision } from '../../leaves/scheduler.js';
import type { ProcessIdentity } from './process-identity.js';
import { isRunning, ownIdentity } from './process-identity.js';
import type { Task } from './task.js';

const SCHEMA = 1;
const DECISIONS_MAX = 500;
/** Dropped together when there are too many, so that not each new one costs a deletion and a note. */
const DECISIONS_DROPPED = 100;
/** One like one of the last so many is counted there: what is tried again and again makes the same few. */
const DECISIONS_ALIKE = 3;

const META = 'meta';
const TASK = 'task';
const DECISION = 'decision';

/** The queue cannot be written, for want of space as a rule: nothing of the change counts. */
export class QueueError extends Error {
  readonly code = 'RESOURCE_EXHAUSTED';
}

/** Does what somebody waits for; RESOURCE_EXHAUSTED: it cannot be put on disk. */
export const recorded = <T>(work: () => T): T => {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof QueueError)) throw error;
    throw new MigrateFsError(error.code, `${error.message}: make room for it, then ask again`, {
      cause: error,
    });
  }
};

/** Numbers of the decisions of a task that are kept: from `first` to `next` - 1. */
interface DecisionRange {
  first: number;
  next: number;
}

/**
 * The queue on disk. Every method that changes it returns when the change is on disk, whole or not at all; one process at
 * a time has it open.
 */
export class TaskStore implements AsyncDisposable {
  readonly folder: string;
  /** Made with the store: ids of tasks mean something within it only. */
  readonly id: string;
  readonly #db: RootDatabase<unknown, Key>;
  readonly #ranges = new Map<number, DecisionRange>();

  private constructor(folder: string, db: RootDatabase<unknown, Key>, id: string) {
    this.folder = folder;
    this.#db = db;
    this.id = id;
  }

  /** FAILED_PRECONDITION: another scheduler has it, it is of a newer version, or it cannot be opened. */
  static async open(folder: string): Promise<TaskStore> {
    let db: RootDatabase<unknown, Key>;
    try {
      mkdirSync(folder, { recursive: true, mode: 0o700 });
      // Without overlapping syncs a transaction returns when it is on disk.
      db = open({ path: folder, encoding: 'json', overlappingSync: false, noSubdir: false });
    } catch (error) {
      throw new MigrateFsError(
        'FAILED_PRECONDITION',
        `cannot open the queue in ${folder}: ${(error as Error).message}`,
        { cause: error },
      );
    }
    try {
      const id = db.transactionSync(() => claim(db, folder));
      return new TaskStore(folder, db, id);
    } catch (error) {
      await db.close();
      throw error;
    }
  }

  /** Every task, in the order of submission. */
  tasks(): Task[] {
    return [...this.#db.getRange({ start: [TASK], end: [TASK, Number.MAX_SAFE_INTEGER] })].map(
      ({ value }) => value as Task,
    );
  }

  /** The number of the next task. */
  nextNumber(): number {
    return (this.#db.get([META, 'next']) as number | undefined) ?? 1;
  }

  /** Keeps a task as it is now, with the decision that made it so. */
  save(task: Task, decision?: TaskDecision): void {
    this.#write(() => this.#put(task, decision));
  }

  /** Keeps several in one transaction: it costs as long as that of one, a sync of the disk. */
  saveAll(changes: readonly { readonly task: Task; readonly decision: TaskDecision }[]): void {
    this.#write(() => {
      for (const { task, decision } of changes) this.#put(task, decision);
    });
  }

  /** Adds a decision that changes nothing about the task. */
  note(number: number, decision: TaskDecision): void {
    this.#write(() => this.#append(number, decision));
  }

  decisions(number: number): TaskDecision[] {
    const { first, next } = this.#rangeOf(number);
    return [...this.#db.getRange({ start: [DECISION, number, first], end: [DECISION, number, next] })].map(
      ({ value }) => value as TaskDecision,
    );
  }

  /** Forgets tasks and their decisions. */
  remove(numbers: readonly number[]): void {
    this.#write(() => {
      for (const number of numbers) {
        const { first, next } = this.#rangeOf(number);
        for (let n = first; n < next; n++) this.#db.removeSync([DECISION, number, n]);
        this.#db.removeSync([TASK, number]);
      }
    });
    for (const number of numbers) this.#ranges.delete(number);
  }

  async close(): Promise<void> {
    this.#db.transactionSync(() => this.#db.removeSync([META, 'holder']));
    await this.#db.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #write(change: () => void): void {
    try {
      this.#db.transactionSync(change);
    } catch (error) {
      // They may be ahead of what is on disk.
      this.#ranges.clear();
      throw new QueueError(`cannot write the queue in ${this.folder}: ${(error as Error).message}`, {
        cause: error,
      });
    }
  }

  #rangeOf(number: number): DecisionRange {
    let range = this.#ranges.get(number);
    if (!range) {
      const keys = [
        ...this.#db.getKeys({
          start: [DECISION, number],
          end: [DECISION, number, Number.MAX_SAFE_INTEGER],
        }),
      ].map((key) => (key as number[])[2]!);
      range = { first: keys[0] ?? 0, next: (keys.at(-1) ?? -1) + 1 };
      this.#ranges.set(number, range);
    }
    return range;
  }

  #put(task: Task, decision?: TaskDecision): void {
    if (task.number >= this.nextNumber()) this.#db.putSync([META, 'next'], task.number + 1);
    this.#db.putSync([TASK, task.number], task);
    if (decision) this.#append(task.number, decision);
  }

  #append(number: number, decision: TaskDecision): void {
    const range = this.#rangeOf(number);
    for (let n = range.next - 1; n >= Math.max(range.first, range.next - DECISIONS_ALIKE); n--) {
      const before = this.#db.get([DECISION, number, n]) as TaskDecision;
      if (before.text !== decision.text || before.state !== decision.state) continue;
      const again = { ...before, times: (before.times ?? 1) + 1, lastAt: decision.at };
      this.#db.putSync([DECISION, number, n], again satisfies TaskDecision);
      return;
    }
    if (range.next - range.first >= DECISIONS_MAX) {
      const end = range.first + DECISIONS_DROPPED;
      for (; range.first < end; range.first++) this.#db.removeSync([DECISION, number, range.first]);
      range.first--;
      const text = 'older decisions are not kept';
      this.#db.putSync([DECISION, number, range.first], { at: decision.at, text } satisfies TaskDecision);
    }
    this.#db.putSync([DECISION, number, range.next++], decision);
  }
}

/** Checks the version, takes the store for this process, and returns its id; within a transaction. */
const claim = (db: RootDatabase<unknown, Key>, folder: string): string => {
  const schema = db.get([META, 'schema']) as number | undefined;
  if (schema !== undefined && schema !== SCHEMA)
    throw new MigrateFsError(
      'FAILED_PRECONDITION',
      `the queue in ${folder} has version ${schema}, this program knows ${SCHEMA}: use the program that wrote it`,
    );
  const holder = db.get([META, 'holder']) as ProcessIdentity | undefined;
  const own = ownIdentity();
  if (holder && isRunning(holder) && holder.pid !== own.pid)
    throw new MigrateFsError(
      'FAILED_PRECONDITION',
      `another scheduler (pid ${holder.pid}) has the queue in ${folder}: stop it, or give another folder`,
    );
  db.putSync([META, 'schema'], SCHEMA);
  db.putSync([META, 'holder'], own);
  const known = db.get([META, 'id']) as string | undefined;
  const id = known ?? randomBytes(6).toString('hex');
  if (known === undefined) db.putSync([META, 'id'], id);
  return id;
};
