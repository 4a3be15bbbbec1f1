import { isTaskFinal } from '../../leaves/scheduler.js';
import { copyDisks } from './copy-step.js';
import { finish } from './finish-step.js';
import { resumeHandOver } from './hand-over-step.js';
import { rollBack } from './roll-back-step.js';
import type { RunEnvironment } from './run-context.js';
import { Cancelled, RunContext } from './run-context.js';
import { startMigration } from './start-step.js';
import { QueueError } from './task-store.js';

type Step = 'starting' | 'copying' | 'handing-over' | 'finishing' | 'rolling-back';

/** Brings one task from the start of its migration to its end, step by step; each begins with what is on disk. */
export class TaskRun {
  readonly #context: RunContext;
  readonly #cancel = new AbortController();

  constructor(env: RunEnvironment, id: string) {
    this.#context = new RunContext(env, id, this.#cancel.signal);
  }

  /** The wish is on disk already. */
  cancel(): void {
    this.#cancel.abort(new Cancelled());
  }

  /** Resolves when the task waits again or has ended, or when `stop` aborts: then it goes on after a restart. Rejects with a
   * `QueueError` where a step cannot be put on disk. */
  async run(stop: AbortSignal): Promise<void> {
    if (this.#context.task.cancelWanted) this.cancel();
    for (;;) {
      const { kind } = this.#context.task.state;
      if (stop.aborted || kind === 'waiting' || isTaskFinal(kind)) return;
      try {
        await this.#steps[kind as Step](stop);
      } catch (error) {
        if (stop.aborted) return;
        // Nothing has happened that is not on disk: whoever runs it may go on from there.
        if (error instanceof QueueError) throw error;
        if (error instanceof Cancelled) this.#context.beginRollBack('cancelled', 'asked for', 'CANCELLED');
        else this.#onDefect(error);
      }
    }
  }

  readonly #steps: Readonly<Record<Step, (stop: AbortSignal) => Promise<void>>> = {
    starting: (stop) => startMigration(this.#context, stop),
    copying: (stop) => copyDisks(this.#context, AbortSignal.any([stop, this.#cancel.signal])),
    'handing-over': (stop) => resumeHandOver(this.#context, AbortSignal.any([stop, this.#cancel.signal])),
    finishing: (stop) => finish(this.#context, stop),
    'rolling-back': (stop) => rollBack(this.#context, stop),
  };

  /** A bug must not leave a migration behind that nobody looks after. */
  #onDefect(error: unknown): void {
    this.#context.env.log('error', 'internal error in a task', { task: this.#context.id, err: error });
    const text = `internal error: ${error instanceof Error ? error.message : String(error)}`;
    const { state } = this.#context.task;
    if (state.kind === 'finishing' || state.kind === 'rolling-back')
      this.#context.enter({ kind: 'failed', error: { code: 'INTERNAL', message: text } }, text);
    else this.#context.beginRollBack('failed', text, 'INTERNAL');
  }
}
