import { pause } from '../../leaves/clock.js';
import { millis } from '../../leaves/units.js';
import type { RunEnvironment } from './run-context.js';
import { TaskRun } from './task-run.js';
import { QueueError } from './task-store.js';

/** After a step that the queue did not take. */
const RECORD_AGAIN = millis(5_000);

/** The runs of tasks that are under way. */
export class TaskRuns {
  readonly #env: RunEnvironment;
  readonly #stop: AbortSignal;
  readonly #onEnd: () => void;
  readonly #runs = new Map<string, { readonly run: TaskRun; readonly ended: Promise<void> }>();

  /** None goes further once `stop` aborts. `onEnd` is called after each. */
  constructor(env: RunEnvironment, stop: AbortSignal, onEnd: () => void) {
    this.#env = env;
    this.#stop = stop;
    this.#onEnd = onEnd;
  }

  get size(): number {
    return this.#runs.size;
  }

  launch(id: string): void {
    const run = new TaskRun(this.#env, id);
    const ended = this.#persist(run, id)
      .catch((error: unknown) => this.#env.log('error', 'internal error in a task', { task: id, err: error }))
      .then(() => {
        this.#runs.delete(id);
        this.#onEnd();
      });
    this.#runs.set(id, { run, ended });
  }

  /** The wish is on disk already. */
  cancel(id: string): void {
    this.#runs.get(id)?.run.cancel();
  }

  /** Resolves when those that are under way have ended. */
  async ended(): Promise<void> {
    await Promise.all([...this.#runs.values()].map(({ ended }) => ended));
  }

  /** Runs a task to its end, however often the queue cannot be written meanwhile. */
  async #persist(run: TaskRun, id: string): Promise<void> {
    const { clock, log } = this.#env;
    while (!this.#stop.aborted)
      try {
        return await run.run(this.#stop);
      } catch (error) {
        if (!(error instanceof QueueError)) throw error;
        log('error', 'a step cannot be recorded: make room for the queue', { task: id, err: error });
        await pause(clock, RECORD_AGAIN, this.#stop).catch(() => undefined);
      }
  }
}
