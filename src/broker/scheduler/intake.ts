import type { Clock } from '../../leaves/clock.js';
import { formatDuration } from '../../leaves/duration.js';
import { MigrateFsError } from '../../leaves/errors.js';
import type { ImageDescription } from '../../leaves/migration.js';
import type { TaskRequest, TaskSnapshot } from '../../leaves/scheduler.js';
import { millis } from '../../leaves/units.js';
import type { HostControl } from './host-control.js';
import type { Planner } from './planner.js';
import { checkImages, checkRequest, orderOf, repeated, type SubmissionRules } from './submission.js';
import { recorded } from './task-store.js';

/** How long the source daemon may take to describe images. */
const DESCRIBE_MAX = millis(10_000);

export interface IntakeOptions extends SubmissionRules {
  readonly hosts: HostControl;
  readonly clock: Clock;
  /** Where a request names none. */
  readonly defaultDriver: string;
}

/** The way of a request into the queue: checked, described by its source, admitted. */
export class Intake {
  readonly #options: IntakeOptions;
  readonly #planner: Planner;
  readonly #stop: AbortSignal;
  readonly #onTaken: () => void;

  /** `onTaken` is called after each task that is new in the queue. */
  constructor(options: IntakeOptions, planner: Planner, stop: AbortSignal, onTaken: () => void) {
    this.#options = options;
    this.#planner = planner;
    this.#stop = stop;
    this.#onTaken = onTaken;
  }

  /** The task that does what is asked for: an earlier one where the request is repeated. */
  async take(request: TaskRequest): Promise<TaskSnapshot> {
    const { book, clock, defaultDriver } = this.#options;
    const before = repeated(request, book);
    if (before) return book.snapshot(before.id);
    const driver = request.driver ?? defaultDriver;
    const { source, images } = request;
    checkRequest(request, driver, this.#options, clock.wall());
    const described = await this.#describe(source, images);
    const meanwhile = repeated(request, book);
    if (meanwhile) return book.snapshot(meanwhile.id);
    checkRequest(request, driver, this.#options, clock.wall());
    const order = orderOf(request, driver, checkImages(source, described));
    const admission = this.#planner.admit(order);
    const { feasible, arithmetic, latestStart } = admission;
    if (!feasible && !request.insist)
      throw new MigrateFsError(
        'FAILED_PRECONDITION',
        `the deadline cannot be met: ${arithmetic}. Give a later one, or insist`,
      );
    const admitted = {
      ...order,
      late: !feasible,
      admission: arithmetic,
      ...(latestStart !== undefined && { latestStart }),
    };
    const how = feasible ? 'admitted' : 'admitted at its submitter’s insistence';
    const { id } = recorded(() => book.add(admitted, `${how}: ${arithmetic}`));
    this.#planner.admitted(id, admission);
    this.#onTaken();
    return book.snapshot(id);
  }

  async #describe(source: string, images: readonly string[]): Promise<readonly ImageDescription[]> {
    const { hosts, clock } = this.#options;
    const late = new AbortController();
    const words = `${source} did not answer in ${formatDuration(DESCRIBE_MAX)}`;
    const forget = clock.after(DESCRIBE_MAX, () =>
      late.abort(new MigrateFsError('DEADLINE_EXCEEDED', words)),
    );
    try {
      return await hosts.describe(source, images, AbortSignal.any([this.#stop, late.signal]));
    } finally {
      forget();
    }
  }
}
