import assert from 'node:assert/strict';
import { MigrateFsError } from '../../leaves/errors.js';
import { flushAhead } from './cutover.js';
import type { Log, SourceEnvironment } from './environment.js';
import type { ImageGroup } from './image-group.js';
import type { Latch } from './latch.js';
import type { MigrationStatus } from './migration-status.js';
import type { Progress } from './progress.js';
import type { SourceWire } from './source-wire.js';

export interface CopyPhasesOptions {
  readonly environment: SourceEnvironment;
  readonly group: ImageGroup;
  readonly wire: SourceWire;
  readonly progress: Progress;
  readonly status: MigrationStatus;
  readonly latch: Latch;
  readonly log: Log;
}

/** The way of the images into sync: bulk copy, dirty resend, synchronous mirror. What is done is not done again. */
export class CopyPhases {
  readonly #options: CopyPhasesOptions;
  #bulkDone = false;
  #compareDigests = false;

  constructor(options: CopyPhasesOptions) {
    this.#options = options;
  }

  /** The replicas hold what an earlier migration has copied: a comparison finds what is left to send. */
  adopt(): void {
    this.#bulkDone = true;
    this.#compareDigests = true;
  }

  /** The target has forgotten what it acknowledged: compared by digests before anything else is sent. */
  compareFirst(): void {
    this.#compareDigests = true;
    for (const image of this.#options.group.images) image.compared = 0;
  }

  /** Copies until every change goes to the target as well. Rejects with the signal's reason. */
  async converge(signal: AbortSignal): Promise<void> {
    const { group, status, progress, log } = this.#options;
    // What a lane had begun may still be made here, unmarked.
    await group.fast.leave();
    signal.throwIfAborted();
    if (this.#compareDigests) await this.#compare(signal);
    await group.beginBulk(signal);
    signal.throwIfAborted();
    if (!this.#bulkDone) {
      status.transitionTo('bulk-copy');
      await group.copyAll(signal);
      this.#bulkDone = true;
    }
    status.transitionTo('dirty-resend');
    progress.beginResend();
    await group.shrink(signal);
    log('info', 'converging', { left: group.left });
    await group.converge(signal);
  }

  /** Once converging: resolves in `mirroring`, with both sides flushed. Rejects with the signal's reason. */
  async reachSync(signal: AbortSignal): Promise<void> {
    const { group, status } = this.#options;
    do {
      await group.copyRest(signal);
      for (const image of group.images) image.sendSize(true);
      for (const image of group.images) assert.equal(image.bitmap.recount(), 0, 'dirty although in sync');
      group.assertTracked();
      await this.#flushAhead(signal);
    } while (!(await this.#announceMirroring(signal)));
    status.transitionTo('mirroring');
  }

  async #compare(signal: AbortSignal): Promise<void> {
    const { group, status, log } = this.#options;
    status.transitionTo(this.#bulkDone ? 'dirty-resend' : 'bulk-copy');
    const differs = await group.compare(signal);
    log('info', 'compared with the target by digests', { differs });
    this.#compareDigests = false;
  }

  /** A target that cannot is lost: it is connected again. */
  async #flushAhead(signal: AbortSignal): Promise<void> {
    const { environment, group, wire, latch } = this.#options;
    try {
      await flushAhead(group, wire, environment, signal);
    } catch (error) {
      signal.throwIfAborted();
      if (!(error instanceof MigrateFsError) || error.code !== 'UNAVAILABLE') throw error;
      wire.drop(error);
      for (;;) await latch.changed(signal);
    }
  }

  /**
   * The target is in sync before this side says so: whoever resumes a guest there because of what is reported here must
   * find it ready for the first write. False: not in sync any more.
   */
  async #announceMirroring(signal: AbortSignal): Promise<boolean> {
    const { group, status } = this.#options;
    await status.announce('mirroring');
    signal.throwIfAborted();
    if (group.clean) return true;
    status.tellTarget();
    return false;
  }
}
