import type { BrokerSnapshot, PathLink } from '../../leaves/broker.js';
import type { Clock } from '../../leaves/clock.js';
import { MigrateFsError } from '../../leaves/errors.js';
import type { LogSink } from '../../leaves/log-sink.js';
import { millis } from '../../leaves/units.js';
import { type RunningMigration, sharedLinks } from '../policy/shared-links.js';
import type { Paths } from '../policy/task.js';
import type { HostControl } from './host-control.js';
import type { Task } from './task.js';
import type { TaskBook } from './task-book.js';

/** Between two looks at what the brokers of running migrations have decided. */
const LOOK_PERIOD = millis(5_000);
/** A round takes no longer: daemons that do not answer are asked again in the next. */
const ROUND_MAX = millis(4_000);
/** States in which the daemon has a broker for the task. */
const MIGRATING = ['copying', 'handing-over', 'finishing'];

interface LiaisonOptions {
  readonly book: TaskBook;
  readonly hosts: HostControl;
  readonly paths: Paths;
  readonly clock: Clock;
  readonly log: LogSink;
}

interface Told {
  /** Another attempt has another migration, with a broker of its own. */
  readonly migrationId: string;
  readonly path: string;
  readonly decision?: string;
}

/** Tells brokers the links they cross and with whom, and puts their decisions into the audit log. */
export class BrokerLiaison {
  readonly #options: LiaisonOptions;
  /** By task: what its broker was told, and what it last decided. */
  readonly #told = new Map<string, Told>();
  #wake: () => void = () => {};

  constructor(options: LiaisonOptions) {
    this.#options = options;
  }

  /** A migration has begun or ended. */
  changed(): void {
    this.#wake();
  }

  /** Works until `stop` aborts. */
  async run(stop: AbortSignal): Promise<void> {
    while (!stop.aborted) {
      const woken = this.#nextRound(stop);
      const limit = new AbortController();
      const forget = this.#options.clock.after(ROUND_MAX, () => limit.abort(new Error('round is over')));
      const signal = AbortSignal.any([stop, limit.signal]);
      const tasks = [...this.#options.book.all].filter(({ state }) => MIGRATING.includes(state.kind));
      for (const id of this.#told.keys()) if (!tasks.some((task) => task.id === id)) this.#told.delete(id);
      const paths = this.#pathsOf(tasks);
      await Promise.all(tasks.map((task) => this.#visit(task, paths.get(task.migrationId!), signal)));
      forget();
      await woken;
    }
  }

  #nextRound(stop: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        forget();
        stop.removeEventListener('abort', done);
        resolve();
      };
      const forget = this.#options.clock.after(LOOK_PERIOD, done);
      stop.addEventListener('abort', done, { once: true });
      this.#wake = done;
    });
  }

  #pathsOf(tasks: readonly Task[]): ReadonlyMap<string, readonly PathLink[]> {
    try {
      return sharedLinks(
        tasks.flatMap((task) => this.#runningOf(task)),
        this.#options.paths,
      );
    } catch (error) {
      this.#options.log('warn', 'brokers are not told their paths', { err: error });
      return new Map();
    }
  }

  /** Nothing where the topology has lost the host under a migration that runs. */
  #runningOf({ migrationId, source, target }: Task): readonly RunningMigration[] {
    try {
      const server = this.#options.hosts.controlAddress(source);
      return [{ migrationId: migrationId!, source, target, server }];
    } catch (error) {
      if (error instanceof MigrateFsError) return [];
      throw error;
    }
  }

  async #visit(task: Task, path: readonly PathLink[] | undefined, signal: AbortSignal): Promise<void> {
    const { hosts, log } = this.#options;
    const migrationId = task.migrationId!;
    try {
      const text = JSON.stringify(path);
      const told = this.#toldOf(task.id, migrationId);
      if (path && told?.path !== text) {
        await hosts.setPath(task.source, migrationId, path, signal);
        this.#told.set(task.id, { ...told, migrationId, path: text });
      }
      this.#note(task.id, await hosts.broker(task.source, migrationId, signal));
    } catch (error) {
      // It has none, or has just ended, or its daemon is busy.
      if (!signal.aborted) log('debug', 'broker not reached', { task: task.id, err: error });
    }
  }

  #toldOf(id: string, migrationId: string): Told | undefined {
    const told = this.#told.get(id);
    return told?.migrationId === migrationId ? told : undefined;
  }

  #note(id: string, broker: BrokerSnapshot): void {
    const { book } = this.#options;
    if (broker.decisions === 0 || !book.find(id)) return;
    // What is decided, not the numbers that were looked at: those change all the time.
    const { zone, netLimit, diskLimit, hotLinks, askedBy, reason } = broker;
    const decision = JSON.stringify([zone, String(netLimit), String(diskLimit), hotLinks, askedBy]);
    const told = this.#toldOf(id, broker.migrationId);
    if (!told || told.decision === decision) return;
    this.#told.set(id, { ...told, decision });
    book.note(id, `broker: ${reason}`, 'broker');
  }
}
