import assert from 'node:assert/strict';
import type { Clock } from '../../leaves/clock.js';
import type { PlainError } from '../../leaves/errors.js';
import type { MigrationSnapshot, MigrationState } from '../../leaves/migration.js';
import { isFinal, MIGRATION_EDGES } from '../../leaves/migration.js';
import type { Millis } from '../../leaves/units.js';
import type { migratefs } from '../wire/generated/data.js';
import type { Log } from './environment.js';
import type { ImageGroup } from './image-group.js';
import type { Outcome } from './ports.js';
import type { SourceWire } from './source-wire.js';

export interface MigrationStatusOptions {
  readonly clock: Clock;
  readonly wire: SourceWire;
  readonly group: ImageGroup;
  readonly log: Log;
  /** What is reported of it now, but for how it ended. */
  readonly describe: () => MigrationSnapshot;
  readonly publish: (snapshot: MigrationSnapshot) => void;
}

/** The state of one migration at its source: the one door for changing it, and what others are told of it. */
export class MigrationStatus {
  /** Resolves in a final state. */
  readonly ended: Promise<void>;
  /** Why it does not go on, or did not. */
  error: PlainError | undefined;
  readonly #options: MigrationStatusOptions;
  #state: MigrationState = 'preparing';
  /** What the target is told before the source enters it itself. */
  #announced: MigrationState | undefined;
  #endedAt: Millis | undefined;
  /** What is reported from then on. */
  #endSnapshot: MigrationSnapshot | undefined;
  #resolveEnded!: () => void;

  constructor(options: MigrationStatusOptions) {
    this.#options = options;
    this.ended = new Promise((resolve) => {
      this.#resolveEnded = resolve;
    });
  }

  get state(): MigrationState {
    return this.#state;
  }

  get isFinal(): boolean {
    return isFinal(this.#state);
  }

  /** Whether the target may think that both sides are in sync, or knows that they are. */
  get inSync(): boolean {
    return this.#state === 'mirroring' || this.#announced === 'mirroring';
  }

  /** The only place where the state changes. */
  transitionTo(next: MigrationState): void {
    if (next === this.#state) return;
    assert(MIGRATION_EDGES[this.#state].includes(next), `${this.#state} -> ${next}`);
    const { log, clock, group } = this.#options;
    log('info', 'migration state', { from: this.#state, to: next });
    this.#state = next;
    if (this.isFinal) this.#endedAt = clock.wall();
    this.tell();
    if (!this.isFinal) return;
    // It is listed for long; its images and their bitmaps go.
    this.#endSnapshot = { ...this.snapshot(), netRate: 0, writeRate: 0, dirtyRate: 0 };
    group.forget();
    this.#resolveEnded();
  }

  /** Tells the target, and whoever watches here. */
  tell(): void {
    this.tellTarget();
    this.#options.publish(this.snapshot());
  }

  tellTarget(): void {
    this.#options.wire.tell({ phase: this.#phase });
  }

  /** Has the target enter `next` before this side does; resolves when it has, or the connection has broken. */
  async announce(next: MigrationState): Promise<Outcome> {
    this.#announced = next;
    try {
      return await this.#options.wire.confirmed({ phase: this.#phase });
    } finally {
      this.#announced = undefined;
    }
  }

  snapshot(): MigrationSnapshot {
    if (this.#endSnapshot) return this.#endSnapshot;
    return {
      ...this.#options.describe(),
      ...(this.#endedAt === undefined ? {} : { endedAt: this.#endedAt }),
      ...(this.error ? { error: this.error } : {}),
    };
  }

  get #phase(): migratefs.data.Phase.$Properties {
    const { allocated, left } = this.#options.group;
    return { state: this.#announced ?? this.#state, bytesTotal: allocated, bytesLeft: left };
  }
}
